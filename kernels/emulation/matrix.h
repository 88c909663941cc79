// Matrix fragments of a warp, as the PTX ISA lays them out over its lanes ("Warp-level matrix
// instructions"). With g = lane / 4 and t = lane % 4, a register holds two neighbouring 16-bit
// elements, the lower index in the lower half:
//   A 16 x 16: a[0] = (g, 2t..), a[1] = (g + 8, 2t..), a[2] = (g, 2t + 8..), a[3] = (g + 8, 2t
//   + 8..) A 16 x 8:  a[0] = (g, 2t..), a[1] = (g + 8, 2t..) B 16 x 8:  b[0] = rows 2t, 2t + 1 of
//   column g;  b[1] = rows 2t + 8, 2t + 9 of column g B 8 x 8:   b[0] = rows 2t, 2t + 1 of column g
//   C 16 x 8:  c[0], c[1] = (g, 2t), (g, 2t + 1);  c[2], c[3] = (g + 8, 2t), (g + 8, 2t + 1)
// Every lane of the warp must call. The emulator sums in f64 and rounds once: the order and the
// width in which a tensor core adds are not documented.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "kernels/emulation/emulator.h"
#include "medvqa/core/dtype.h"

namespace medvqa::emulation {
enum class HalfType : std::uint8_t { f16, bf16 };
// depth 8 or 16.
void multiply_fragments(HalfType type, int depth, float* c, const std::uint32_t* a,
                        const std::uint32_t* b, Site site);
void load_matrices(int count, bool transposed, std::uint32_t* registers, const void* row,
                   Site site);
}  // namespace medvqa::emulation

namespace medvqa::cuda {

// Both rounded to T; `low` in the lower half.
template <class T>
std::uint32_t pack_pair(float low, float high) {
  const T pair[2] = {static_cast<T>(low), static_cast<T>(high)};
  std::uint32_t word = 0;
  std::memcpy(&word, pair, sizeof(word));
  return word;
}

// c += a b, T = f16 (from sm_75 on; there two products of depth 8) or bf16 (from sm_80 on).
template <class T>
void mma_m16n8k16(float (&c)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                  emulation::Site site = {__builtin_FILE(), __builtin_LINE()}) {
  static_assert(std::is_same_v<T, Float16> || std::is_same_v<T, BFloat16>);
  using emulation::HalfType;
  emulation::multiply_fragments(std::is_same_v<T, Float16> ? HalfType::f16 : HalfType::bf16, 16, c,
                                a, b, site);
}
template <class T>
void mma_m16n8k8(float (&c)[4], const std::uint32_t (&a)[2], const std::uint32_t (&b)[1],
                 emulation::Site site = {__builtin_FILE(), __builtin_LINE()}) {
  static_assert(std::is_same_v<T, Float16> || std::is_same_v<T, BFloat16>);
  using emulation::HalfType;
  emulation::multiply_fragments(std::is_same_v<T, Float16> ? HalfType::f16 : HalfType::bf16, 8, c,
                                a, b, site);
}

// N = 1, 2 or 4 matrices of 8 x 8 16-bit elements from shared memory. Lane 8 i + r gives the
// address of row r of matrix i (16 bytes, aligned to 16). Lane l receives of matrix i, in r[i],
// elements (l / 4, 2 (l % 4)) and the one right of it; transposed, (2 (l % 4), l / 4) and the one
// below it.
template <int N>
void ldmatrix(std::uint32_t (&r)[N], const void* row,
              emulation::Site site = {__builtin_FILE(), __builtin_LINE()}) {
  static_assert(N == 1 || N == 2 || N == 4);
  emulation::load_matrices(N, false, r, row, site);
}
template <int N>
void ldmatrix_trans(std::uint32_t (&r)[N], const void* row,
                    emulation::Site site = {__builtin_FILE(), __builtin_LINE()}) {
  static_assert(N == 1 || N == 2 || N == 4);
  emulation::load_matrices(N, true, r, row, site);
}

}  // namespace medvqa::cuda
