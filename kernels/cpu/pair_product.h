// Products of bf16 matrices by the processor's dot products of pairs (AVX-512 BF16): one
// instruction, VDPBF16PS, adds a[0] b[0] + a[1] b[1] to each of 16 sums in f32.
//
// The second operand is packed: 16 columns stand together, rows in pairs, so that one load brings
// the pairs of 16 columns:
//   packed[n / 16][k / 2][n % 16][k % 2] = b[k][n],   k and n padded with zeros.
// The first needs no more than that pairs along k are neighbours; pairs themselves may lie anywhere
// (`row` and `pair` say where), so a matrix stored as [k / 2][m][2] is read as its transpose.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "medvqa/core/dtype.h"

namespace medvqa::cpu {

inline constexpr std::int64_t kPackedColumns = 16;

// Whether this processor has the instruction, and no AMX, with which oneDNN is faster.
bool multiplies_pairs();

// c[m, n] = a b, or c += a b, with c in f32; n is a multiple of 16, k of 2.
struct PairProduct {
  std::int64_t m, n, k;
  const BFloat16* a;
  std::int64_t a_row, a_pair;  // elements from a row to the next, from a pair to the next
  const BFloat16* b;
  std::int64_t b_columns;  // elements from 16 columns to the next 16
  float* c;
  std::int64_t c_row;
  bool accumulate = false;
};
void multiply_pairs(const PairProduct& p);

// b = source: [k, n], rows `stride` elements apart; rows of zeros up to `padded_k`, which is even.
// n is a multiple of 16.
inline void pack_rows(const BFloat16* source, std::int64_t stride, std::int64_t k, std::int64_t n,
                      std::int64_t padded_k, BFloat16* packed) {
  for (std::int64_t i = 0; i < padded_k; i += 2) {
    for (std::int64_t j = 0; j < n; ++j) {
      BFloat16* pair = packed + j / kPackedColumns * kPackedColumns * padded_k +
                       i * kPackedColumns + j % kPackedColumns * 2;
      pair[0] = i < k ? source[i * stride + j] : BFloat16(0);
      pair[1] = i + 1 < k ? source[(i + 1) * stride + j] : BFloat16(0);
    }
  }
}

// b = source^T: [n, k], rows `stride` elements apart; columns of zeros up to `padded_n`, a multiple
// of 16. k is even.
inline void pack_columns(const BFloat16* source, std::int64_t stride, std::int64_t n,
                         std::int64_t k, std::int64_t padded_n, BFloat16* packed) {
  for (std::int64_t j = 0; j < padded_n; ++j) {
    BFloat16* column = packed + j / kPackedColumns * kPackedColumns * k + j % kPackedColumns * 2;
    for (std::int64_t i = 0; i < k; i += 2) {
      BFloat16* pair = column + i * kPackedColumns;
      if (j < n) {
        std::copy_n(source + j * stride + i, 2, pair);
      } else {
        std::fill_n(pair, 2, BFloat16(0));
      }
    }
  }
}

}  // namespace medvqa::cpu
