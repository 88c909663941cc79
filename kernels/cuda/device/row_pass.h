// Rows that are read more than once: to reduce them, and to write what comes of that.
//
// A group of threads (a warp or a block of kRowThreads) has one row. The first vectors of each
// thread stay in its registers, enough for the widths of models; what a wider row has beyond that
// is read again from the cache.
#pragma once

#include <cstdint>

#include "kernels/cuda/device/reduce.h"
#include "kernels/cuda/device/rows.h"

namespace medvqa::cuda {

inline constexpr int kRowThreads = 256;
// On one multiprocessor at a time: one loads while another reduces. 128 registers a thread are
// left.
inline constexpr int kRowBlocks = 2;

// A row of up to so many vectors is a warp's, a longer one a block's.
inline constexpr int kWarpRowVectors = 256;

// Vectors that a thread of such a group keeps of each of `Tensors` rows; more would not fit into
// its registers.
template <int Group, int Tensors>
inline constexpr int kKeptVectors = Group == 32 ? 8 / Tensors : 4;

// Same rows of `Tensors` tensors under the threads of one group.
template <class T, int N, int Group, int Tensors>
class RowPass {
 public:
  __device__ RowPass(const T* const (&rows)[Tensors], int columns) : vectors_(columns / N) {
#pragma unroll
    for (int i = 0; i < Tensors; ++i) rows_[i] = rows[i];
#pragma unroll
    for (int k = 0; k < kKept; ++k) {
      const int vector = lane() + k * Group;
      if (vector < vectors_) load(vector, kept_[k]);
    }
  }

  // Calls f(column, vectors) for each of this thread's vectors, the first of them at `column`;
  // vectors[i] is that of tensor i.
  template <class F>
  __device__ void for_each(F&& f) const {
#pragma unroll
    for (int k = 0; k < kKept; ++k) {
      const int vector = lane() + k * Group;
      if (vector < vectors_) f(vector * N, kept_[k]);
    }
    for (int vector = lane() + kKept * Group; vector < vectors_; vector += Group) {
      Vector<T, N> again[Tensors];
      load(vector, again);
      f(vector * N, again);
    }
  }

 private:
  static constexpr int kKept = kKeptVectors<Group, Tensors>;

  __device__ static int lane() {
    return static_cast<int>(threadIdx.x) % Group;
  }
  __device__ void load(int vector, Vector<T, N> (&to)[Tensors]) const {
#pragma unroll
    for (int i = 0; i < Tensors; ++i) to[i] = load_vector<T, N>(rows_[i] + vector * N);
  }

  const T* rows_[Tensors];
  int vectors_;
  Vector<T, N> kept_[kKept][Tensors];
};

// The row of this thread's group.
template <int Group>
__device__ inline std::int64_t group_row() {
  return static_cast<std::int64_t>(blockIdx.x) * (kRowThreads / Group) + threadIdx.x / Group;
}

// Every thread of the group gets the sum; `partial` as in block_sum.
template <int Group>
__device__ inline float group_sum(float value, float* partial) {
  if constexpr (Group == 32) {
    return warp_sum(value);
  } else {
    return block_sum<Group>(value, partial);
  }
}

// Calls f.template operator()<N, Group>(blocks) for `rows` rows of `columns` elements of T.
template <class T, class F>
void dispatch_row_groups(std::int64_t rows, std::int64_t columns, bool vectors, F&& f) {
  MEDVQA_CHECK(columns <= INT32_MAX, "a row of " + std::to_string(columns) + " elements");
  dispatch_vectors<T>(vectors, [&]<int N>() {
    if (columns / N <= kWarpRowVectors) {
      f.template operator()<N, 32>(blocks_for(rows, kRowThreads / 32));
    } else {
      f.template operator()<N, kRowThreads>(blocks_for(rows, 1));
    }
  });
}

}  // namespace medvqa::cuda
