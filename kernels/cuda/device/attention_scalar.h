// Attention's tiles in f32, for every type and head size: 256 threads, 16 x 16, work on 32 x 32
// scores, each thread on rows 2 ty, 2 ty + 1 and columns tx, tx + 16; and on 32 rows of at most
// kColumns results, columns tx + 16 c. A head larger than kColumns is shared out to several blocks,
// which all make the same scores.
//
// Shared rows are 33 floats long: the 16 rows (or columns) a half warp reads at once then lie in
// 16 different banks, (33 i) mod 32 = i.
#pragma once

#include "kernels/cuda/device/attention_arguments.h"
#include "machine.h"

namespace medvqa::cuda::scalar {

constexpr int kThreads = 256;
constexpr int kTile = 32;

using Square = float[kTile][kTile + 1];
template <int kColumns>
using Wide = float[kTile][kColumns];

struct Place {
  int tx, ty;
  __device__ Place()
      : tx(static_cast<int>(threadIdx.x) % 16), ty(static_cast<int>(threadIdx.x) / 16) {}
  __device__ int row(int i) const { return 2 * ty + i; }
  __device__ int column(int j) const { return tx + 16 * j; }
};

// s[i][j] = sum_d left[row i][d] right[column j][d]; rows that are not there count as zeros.
// Begins and ends with threads at different places: `a` and `b` are free after the next barrier.
template <class T>
__device__ void multiply_rows(const HeadRows<const T>& left, const HeadRows<const T>& right,
                              int size, Square& a, Square& b, float (&s)[2][2]) {
  const Place at;
  for (int i = 0; i < 2; ++i) s[i][0] = s[i][1] = 0;
  for (int begin = 0; begin < size; begin += kTile) {
    const int depth = size - begin < kTile ? size - begin : kTile;
    __syncthreads();
    const int d = static_cast<int>(threadIdx.x) % kTile;
    for (int r = static_cast<int>(threadIdx.x) / kTile; r < kTile; r += kThreads / kTile) {
      a[r][d] = d < depth && r < left.count ? to_float(left.row(r)[begin + d]) : 0;
      b[r][d] = d < depth && r < right.count ? to_float(right.row(r)[begin + d]) : 0;
    }
    __syncthreads();
    if (at.row(0) >= left.count || at.column(0) >= right.count) continue;
    for (int e = 0; e < depth; ++e) {
      const float a0 = a[at.row(0)][e], a1 = a[at.row(1)][e];
      const float b0 = b[at.column(0)][e], b1 = b[at.column(1)][e];
      s[0][0] = fmaf(a0, b0, s[0][0]);
      s[0][1] = fmaf(a0, b1, s[0][1]);
      s[1][0] = fmaf(a1, b0, s[1][0]);
      s[1][1] = fmaf(a1, b1, s[1][1]);
    }
  }
}

__device__ inline void store_square(const float (&s)[2][2], Square& to) {
  const Place at;
  for (int i = 0; i < 2; ++i) {
    for (int j = 0; j < 2; ++j) to[at.row(i)][at.column(j)] = s[i][j];
  }
}

// `width` columns from `begin` on; zeros for rows that are not there.
template <class T, int kColumns>
__device__ void load_columns(const HeadRows<const T>& from, int begin, int width,
                             Wide<kColumns>& to) {
  for (int i = static_cast<int>(threadIdx.x); i < kTile * kColumns; i += kThreads) {
    const int r = i / kColumns, c = i % kColumns;
    if (c < width) to[r][c] = r < from.count ? to_float(from.row(r)[begin + c]) : 0;
  }
}

template <int kColumns>
struct Result {
  float value[2][kColumns / 16] = {};

  // += p x over `depth` rows of x, or all of its tile
  __device__ void add_product(const Square& p, const Wide<kColumns>& x, int width, int depth) {
    const Place at;
    for (int k = 0; k < lesser(depth, kTile); ++k) {
      const float p0 = p[at.row(0)][k], p1 = p[at.row(1)][k];
#pragma unroll
      for (int c = 0; c < kColumns / 16; ++c) {
        if (at.column(c) >= width) continue;
        value[0][c] = fmaf(p0, x[k][at.column(c)], value[0][c]);
        value[1][c] = fmaf(p1, x[k][at.column(c)], value[1][c]);
      }
    }
  }
  __device__ void scale(int i, float factor) {
#pragma unroll
    for (int c = 0; c < kColumns / 16; ++c) value[i][c] *= factor;
  }
  template <class T>
  __device__ void put_rows(const HeadRows<T>& to, int begin, int width, bool accumulate) const {
    const Place at;
    for (int i = 0; i < 2; ++i) {
      if (at.row(i) >= to.count) continue;
#pragma unroll
      for (int c = 0; c < kColumns / 16; ++c) {
        if (at.column(c) >= width) continue;
        put(to.row(at.row(i)) + begin + at.column(c), value[i][c], accumulate);
      }
    }
  }
};

// Over the 16 threads that have parts of the same rows.
__device__ inline float row_sum(float value) {
  for (int lanes = 8; lanes > 0; lanes /= 2) value += __shfl_xor_sync(0xffffffffu, value, lanes);
  return value;
}
__device__ inline float row_max(float value) {
  for (int lanes = 8; lanes > 0; lanes /= 2) {
    value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, lanes));
  }
  return value;
}

// A block's query head (or key/value head), and its columns of the result.
struct Share {
  int head, begin, width;
  __device__ Share(int size, int columns) {
    const int pieces = (size + columns - 1) / columns;
    head = static_cast<int>(blockIdx.y) / pieces;
    begin = static_cast<int>(blockIdx.y) % pieces * columns;
    width = size - begin < columns ? size - begin : columns;
  }
};

// Calls f.template operator()<kColumns>(blocks a head takes).
template <class F>
void dispatch_columns(std::int64_t size, F&& f) {
  if (size <= 64) return f.template operator()<64>(std::int64_t{1});
  return f.template operator()<128>((size + 127) / 128);
}

}  // namespace medvqa::cuda::scalar
