// Attention's tiles on tensor cores: 128 threads, each of the four warps at work on 16 rows of a
// product. Fragments are laid out as kernels/emulation/matrix.h says; with g = lane / 4 and
// t = lane % 4 a thread has, of 16 x 8 results c[4], rows g and g + 8 and columns 2 t, 2 t + 1.
//
// A shared row is D elements and 16 bytes more: an odd number (9, 11, 17) of pieces of 16 bytes.
// ldmatrix reads the same column of 8 rows at once, piece r * odd + c of row r; a product with an
// odd number is one to one modulo 8, so the 8 pieces lie in different eighths of the 32 banks.
#pragma once

#include "kernels/cuda/device/attention_arguments.h"
#include "machine.h"

namespace medvqa::cuda::fragments {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / 32;
constexpr int kWarpRows = 16;
constexpr int kBlockRows = kWarps * kWarpRows;

// Blocks a multiprocessor should have room for where a thread has one accumulator: at most 168
// registers a thread, or 255.
template <int D>
constexpr int kBlocksAtOnce = D <= 64 ? 3 : 2;

template <int D>
constexpr int kStride = D + 8;
// Bytes of a tile in shared memory.
template <int D>
constexpr int tile_bytes(int rows) {
  return rows * kStride<D> * 2;
}

struct Place {
  int lane, first_row;  // of the warp, in the block's rows
  __device__ Place()
      : lane(static_cast<int>(threadIdx.x) % 32),
        first_row(static_cast<int>(threadIdx.x) / 32 * kWarpRows) {}
  // In the block's rows: of c[2 i], c[2 i + 1].
  __device__ int row(int i) const { return first_row + lane / 4 + 8 * i; }
  // In tile n of 8 columns: of c[j], c[2 + j].
  __device__ int column(int n, int j) const { return 8 * n + 2 * (lane % 4) + j; }
};

// Begins the copy of kRows rows; those that are not there become zeros. It has ended after
// cp_async_wait and a barrier.
template <int D, int kRows, class T>
__device__ void begin_load(const HeadRows<const T>& from, T* tile) {
  constexpr int kPieces = D / 8;
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kPieces; i += kThreads) {
    const int r = i / kPieces, c = i % kPieces * 8;
    const bool there = r < from.count;
    T* to = tile + r * kStride<D> + c;
    if (from.vectors) {
      cp_async16(to, from.row(there ? r : 0) + c, there);
      continue;
    }
    Vector<T, 8> piece;
#pragma unroll
    for (int e = 0; e < 8; ++e) piece[e] = there ? from.row(r)[c + e] : from_float<T>(0);
    store_vector(to, piece);
  }
}

// The left operand of products, 16 rows of D, kept in registers.
template <class T, int D>
struct RowsInRegisters {
  std::uint32_t a[D / 16][4];
  __device__ void read(const T* tile) {
    const int lane = Place().lane;
#pragma unroll
    for (int d = 0; d < D / 16; ++d) {
      ldmatrix(a[d], tile + lane % 16 * kStride<D> + 16 * d + lane / 16 * 8);
    }
  }
  __device__ void get(int d, std::uint32_t (&to)[4]) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) to[i] = a[d][i];
  }
};

// The same, read from its tile whenever it is needed.
template <class T, int D>
struct RowsInShared {
  const T* tile = nullptr;
  __device__ void read(const T* from) { tile = from; }
  __device__ void get(int d, std::uint32_t (&to)[4]) const {
    const int lane = Place().lane;
    ldmatrix(to, tile + lane % 16 * kStride<D> + 16 * d + lane / 16 * 8);
  }
};

template <class T>
__device__ void multiply_pair(float (&left)[4], float (&right)[4], const std::uint32_t (&a)[4],
                              const std::uint32_t (&b)[4]) {
  const std::uint32_t b_left[2] = {b[0], b[1]}, b_right[2] = {b[2], b[3]};
  mma_m16n8k16<T>(left, a, b_left);
  mma_m16n8k16<T>(right, a, b_right);
}

// c = left tile', for 8 N rows of the tile: scores.
template <int D, int N, class T, class Rows>
__device__ void multiply_rows(const Rows& left, const T* tile, float (&c)[N][4]) {
  static_assert(N % 2 == 0);
  const int lane = Place().lane;
  const T* own = tile + (lane / 16 * 8 + lane % 8) * kStride<D> + lane / 8 % 2 * 8;
#pragma unroll
  for (int n = 0; n < N; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) c[n][i] = 0;
  }
#pragma unroll
  for (int d = 0; d < D / 16; ++d) {
    std::uint32_t a[4];
    left.get(d, a);
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      std::uint32_t b[4];
      ldmatrix(b, own + 8 * n * kStride<D> + 16 * d);
      multiply_pair<T>(c[n], c[n + 1], a, b);
    }
  }
}

// c += p tile: p's 16 x 8 N values are rounded to T and meet 8 N rows of the tile.
template <int D, int N, class T>
__device__ void add_product(const float (&p)[N][4], const T* tile, float (&c)[D / 8][4]) {
  static_assert(N % 2 == 0);
  const int lane = Place().lane;
  const T* own = tile + lane % 16 * kStride<D> + lane / 16 * 8;
#pragma unroll
  for (int n = 0; n < N; n += 2) {
    // Two neighbouring results are laid out as one left operand is.
    const std::uint32_t a[4] = {pack_pair<T>(p[n][0], p[n][1]), pack_pair<T>(p[n][2], p[n][3]),
                                pack_pair<T>(p[n + 1][0], p[n + 1][1]),
                                pack_pair<T>(p[n + 1][2], p[n + 1][3])};
#pragma unroll
    for (int d = 0; d < D / 8; d += 2) {
      std::uint32_t b[4];
      ldmatrix_trans(b, own + 8 * n * kStride<D> + 8 * d);
      multiply_pair<T>(c[d], c[d + 1], a, b);
    }
  }
}

// Rows i of c times factor[i], to the warp's rows of `to`.
template <int D, class T>
__device__ void put_rows(const float (&c)[D / 8][4], const float (&factor)[2],
                         const HeadRows<T>& to, bool accumulate) {
  const Place at;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    if (at.row(i) >= to.count) continue;
#pragma unroll
    for (int d = 0; d < D / 8; ++d) {
      T* element = to.row(at.row(i)) + at.column(d, 0);
      const float x = c[d][2 * i] * factor[i], y = c[d][2 * i + 1] * factor[i];
      if (to.vectors) {
        Vector<T, 2> pair;
        if (accumulate) pair = load_vector<T, 2>(element);
        pair[0] = from_float<T>(accumulate ? to_float(pair[0]) + x : x);
        pair[1] = from_float<T>(accumulate ? to_float(pair[1]) + y : y);
        store_vector(element, pair);
      } else {
        put(element, x, accumulate);
        put(element + 1, y, accumulate);
      }
    }
  }
}

// Over the four threads that have parts of the same rows.
__device__ inline float row_sum(float value) {
  value += __shfl_xor_sync(0xffffffffu, value, 1);
  return value + __shfl_xor_sync(0xffffffffu, value, 2);
}
__device__ inline float row_max(float value) {
  value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 1));
  return fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 2));
}

// Whether these kernels serve the type, the head size and the device; f32 has no products here, and
// bf16 has none before sm_80.
inline bool serve(DType type, std::int64_t size, int architecture) {
  const bool typed = type == DType::f16 || (type == DType::bf16 && architecture >= 80);
  return typed && (size == 64 || size == 80 || size == 128);
}

// Calls f.template operator()<T, D>() for a type and a size that are served.
template <class F>
void dispatch(DType type, std::int64_t size, F&& f) {
  const auto sized = [&]<class T>() {
    if (size == 64) return f.template operator()<T, 64>();
    if (size == 80) return f.template operator()<T, 80>();
    return f.template operator()<T, 128>();
  };
  return type == DType::f16 ? sized.template operator()<f16>() : sized.template operator()<bf16>();
}

}  // namespace medvqa::cuda::fragments
