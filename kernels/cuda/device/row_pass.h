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

// N neighbours of x, or of x and the gradient of its norm's output, which may be of other types.
template <class X, int N>
struct XRow {
  static constexpr int kTensors = 1;
  struct Piece {
    Vector<X, N> x;
  };
  const X* x;
  __device__ void load(int column, Piece& to) const { to.x = load_vector<X, N>(x + column); }
};
template <class X, class T, int N>
struct XAndGradientRows {
  static constexpr int kTensors = 2;
  struct Piece {
    Vector<X, N> x;
    Vector<T, N> dy;
  };
  const X* x;
  const T* dy;
  __device__ void load(int column, Piece& to) const {
    to.x = load_vector<X, N>(x + column);
    to.dy = load_vector<T, N>(dy + column);
  }
};

// The rows of one of these under the threads of one group.
template <class Rows, int N, int Group>
class RowPass {
 public:
  using Piece = typename Rows::Piece;

  __device__ RowPass(const Rows& rows, int columns) : rows_(rows), vectors_(columns / N) {
#pragma unroll
    for (int k = 0; k < kKept; ++k) {
      const int vector = lane() + k * Group;
      if (vector < vectors_) rows_.load(vector * N, kept_[k]);
    }
  }

  // Calls f(column, piece) for each of this thread's pieces, which begins at `column`.
  template <class F>
  __device__ void for_each(F&& f) const {
#pragma unroll
    for (int k = 0; k < kKept; ++k) {
      const int vector = lane() + k * Group;
      if (vector < vectors_) f(vector * N, kept_[k]);
    }
    for (int vector = lane() + kKept * Group; vector < vectors_; vector += Group) {
      Piece again;
      rows_.load(vector * N, again);
      f(vector * N, again);
    }
  }

 private:
  static constexpr int kKept = kKeptVectors<Group, Rows::kTensors>;

  __device__ static int lane() {
    return static_cast<int>(threadIdx.x) % Group;
  }

  Rows rows_;
  int vectors_;
  Piece kept_[kKept];
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

// Calls f.template operator()<X, T>() for a norm whose y has type T and whose x has T's or is f32.
template <class F>
void dispatch_norm(DType x, DType y, F&& f) {
  dispatch_storage(y, [&]<class T>() {
    if (x == y) return f.template operator()<T, T>();
    if constexpr (!std::is_same_v<T, float>) f.template operator()<float, T>();
  });
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
