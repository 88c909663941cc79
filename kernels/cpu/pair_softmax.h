// The softmax between products of pairs, in base 2: exp(scale s - lse) = 2^(s scale2 - lse2), where
// scale2 = scale log2(e) and lse2 = lse log2(e). Results are rounded to bf16 by the processor,
// which differs from BFloat16's own rounding in subnormals alone: they become zero.
#pragma once

#include <cstdint>
#include <limits>

#include "medvqa/core/dtype.h"

namespace medvqa::cpu {

// What is known of a row's softmax after some blocks of keys.   Milakov & Gimelshein 2018
struct RunningSoftmax2 {
  float top = -std::numeric_limits<float>::infinity();  // of the scores times scale2
  float sum = 0;                                        // of 2^(score scale2 - top)
};

// Puts probabilities 2^(score scale2 - top) in the place of `columns` scores, a multiple of 16,
// into the first half of their bytes; zero from `visible` on. Returns what everything summed before
// must be multiplied by.
float softmax_row_in_place(float* scores, float scale2, std::int64_t visible, std::int64_t columns,
                           RunningSoftmax2& running);

// Two rows of scores, of gradients dp of their probabilities, and where to write.
struct ScoreRows {
  const float *scores, *dp;     // a row's first element
  std::int64_t row;             // elements from one row to the other
  const float *lse2, *delta;    // [2]
  std::int64_t visible[2];      // columns
  BFloat16* probability_pairs;  // [columns][2]
  BFloat16* gradient_pairs;     // [columns][2]
  BFloat16* gradients[2];       // [columns] of each row
};
// probability = 2^(score scale2 - lse2), gradient = probability (dp - delta), zero where not
// visible; lse2 = infinity makes both zero. `columns` is a multiple of 16.
void score_gradients(const ScoreRows& rows, float scale2, std::int64_t columns);

}  // namespace medvqa::cpu
