// Attention in bf16 for head sizes of a multiple of 16, by products of pairs (pair_product.h).
// Tasks are attention_tiles.h's; keys and values are packed once a task.
#pragma once

#include "kernels/cpu/attention_tiles.h"
#include "kernels/cpu/avx512_bf16.h"

namespace medvqa::cpu {

#if MEDVQA_AVX512_BF16
void attention_task_in_pairs(const ops::Attention& p, const Task& task, Pieces pieces);
void attention_backward_task_in_pairs(const ops::AttentionBackward& b, const Task& task,
                                      Pieces pieces);
#endif

}  // namespace medvqa::cpu
