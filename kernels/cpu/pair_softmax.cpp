#include "kernels/cpu/avx512_bf16.h"
#if MEDVQA_AVX512_BF16

#include "kernels/cpu/pair_softmax.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace medvqa::cpu {

#define MEDVQA_INLINE_AVX512_BF16 MEDVQA_TARGET_AVX512_BF16 [[gnu::always_inline]] inline

namespace {

constexpr std::int64_t kLanes = 16;

// 2^x within 1.5e-7 of the true value, relative; 0 far below, NaN stays NaN. x = n + r, |r| <= 1/2;
// 2^r by the polynomial of degree 5 that fits it best (weighted least squares, Lawson 1961: 9e-8).
// Of its 9 instructions five compete with the dot products for the multipliers.
MEDVQA_INLINE_AVX512_BF16 __m512 exp2(__m512 x) {
  // In this order the maximum keeps NaN.
  const __m512 bounded = _mm512_max_ps(_mm512_set1_ps(-200.0f), x);
  const __m512 n = _mm512_roundscale_ps(bounded, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 r = _mm512_sub_ps(bounded, n);
  __m512 p = _mm512_set1_ps(0x1.5bba14p-10f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.3cea88p-7f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.c6b752p-5f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.ebf9bcp-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.62e42ap-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, n);
}

// Which of 16 columns from `column` on come before `visible`; all of them if kAll says so.
template <bool kAll>
MEDVQA_INLINE_AVX512_BF16 __mmask16 mask_of(std::int64_t visible, std::int64_t column) {
  if constexpr (kAll) return 0xffff;
  if (visible <= column) return 0;
  if (visible >= column + kLanes) return 0xffff;
  return static_cast<__mmask16>((1U << (visible - column)) - 1U);
}

// Two rows' sixteen as bf16: the first row's in the lower half.
MEDVQA_INLINE_AVX512_BF16 __m512i round_rows(__m512 first, __m512 second) {
  return (__m512i)_mm512_cvtne2ps_pbh(second, first);
}

// first[0], second[0], first[1], second[1], ... of round_rows.
MEDVQA_INLINE_AVX512_BF16 __m512i interleave(__m512i rows) {
  alignas(64) static constexpr std::uint16_t kOrder[32] = {
      0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
      8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return _mm512_permutexvar_epi16(_mm512_load_si512(kOrder), rows);
}

// The largest of the visible scores.
template <bool kAll>
MEDVQA_INLINE_AVX512_BF16 float row_top(const float* scores, std::int64_t visible) {
  const __m512 least = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
  __m512 tops = least;
  for (std::int64_t j = 0; j < visible; j += kLanes) {
    const __mmask16 mask = mask_of<kAll>(visible, j);
    tops = _mm512_max_ps(tops, _mm512_mask_loadu_ps(least, mask, scores + j));
  }
  return _mm512_reduce_max_ps(tops);
}

// Probabilities in the place of scores; returns their sum.
template <bool kAll>
MEDVQA_INLINE_AVX512_BF16 float row_probabilities(float* scores, __m512 scale2, __m512 top,
                                                  std::int64_t visible, std::int64_t columns) {
  auto* probabilities = reinterpret_cast<BFloat16*>(scores);
  __m512 sums = _mm512_setzero_ps();
  for (std::int64_t j = 0; j < columns; j += kLanes) {
    const __m512 x = _mm512_fmsub_ps(_mm512_loadu_ps(scores + j), scale2, top);
    const __m512 e = _mm512_maskz_mov_ps(mask_of<kAll>(visible, j), exp2(x));
    sums = _mm512_add_ps(sums, e);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(probabilities + j),
                        (__m256i)_mm512_cvtneps_pbh(e));
  }
  return _mm512_reduce_add_ps(sums);
}

template <bool kAll>
MEDVQA_INLINE_AVX512_BF16 void gradients_of_rows(const ScoreRows rows, float scale,
                                                 std::int64_t columns) {
  const __m512 scale2 = _mm512_set1_ps(scale);
  const __m512 lse2[2] = {_mm512_set1_ps(rows.lse2[0]), _mm512_set1_ps(rows.lse2[1])};
  const __m512 delta[2] = {_mm512_set1_ps(rows.delta[0]), _mm512_set1_ps(rows.delta[1])};
  for (std::int64_t j = 0; j < columns; j += kLanes) {
    __m512 p[2], ds[2];
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const __mmask16 mask = mask_of<kAll>(rows.visible[i], j);
      const __m512 score = _mm512_loadu_ps(rows.scores + i * rows.row + j);
      const __m512 dp = _mm512_loadu_ps(rows.dp + i * rows.row + j);
      p[i] = _mm512_maskz_mov_ps(mask, exp2(_mm512_fmsub_ps(score, scale2, lse2[i])));
      ds[i] = _mm512_maskz_mul_ps(mask, p[i], _mm512_sub_ps(dp, delta[i]));
    }
    const __m512i gradients = round_rows(ds[0], ds[1]);
    _mm512_storeu_si512(rows.probability_pairs + 2 * j, interleave(round_rows(p[0], p[1])));
    _mm512_storeu_si512(rows.gradient_pairs + 2 * j, interleave(gradients));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(rows.gradients[0] + j),
                        _mm512_castsi512_si256(gradients));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(rows.gradients[1] + j),
                        _mm512_extracti64x4_epi64(gradients, 1));
  }
}

}  // namespace

MEDVQA_TARGET_AVX512_BF16 float softmax_row_in_place(float* scores, float scale2,
                                                     std::int64_t visible, std::int64_t columns,
                                                     RunningSoftmax2& running) {
  const bool all = visible == columns;
  const float block = all ? row_top<true>(scores, visible) : row_top<false>(scores, visible);
  const float top = std::max(running.top, scale2 * block);
  const __m512 tops = _mm512_set1_ps(top);
  const __m512 scales = _mm512_set1_ps(scale2);
  const float sum = all ? row_probabilities<true>(scores, scales, tops, visible, columns)
                        : row_probabilities<false>(scores, scales, tops, visible, columns);
  const float factor = running.top == top ? 1.0f : std::exp2(running.top - top);
  running = {top, running.sum * factor + sum};
  return factor;
}

MEDVQA_TARGET_AVX512_BF16 void score_gradients(const ScoreRows& rows, float scale2,
                                               std::int64_t columns) {
  if (std::min(rows.visible[0], rows.visible[1]) >= columns) {
    gradients_of_rows<true>(rows, scale2, columns);
  } else {
    gradients_of_rows<false>(rows, scale2, columns);
  }
}

}  // namespace medvqa::cpu

#endif
