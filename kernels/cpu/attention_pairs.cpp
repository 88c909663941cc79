#include "kernels/cpu/attention_pairs.h"

#if MEDVQA_AVX512_BF16

#include <cmath>
#include <numbers>

#include "kernels/cpu/pair_product.h"
#include "kernels/cpu/pair_softmax.h"

namespace medvqa::cpu {

namespace {

// The memory of a forward task. Scores stand in rows of a block's keys; probabilities take their
// place, in rows twice as long as they need.
struct ForwardPieces {
  float *scores, *y;
  BFloat16 *q, *k_packed, *v_packed;
};

void finish_tile(const ops::Attention& p, const Tile& tile, const float* y_QD,
                 const RunningSoftmax2* running) {
  const std::int64_t size = p.q_THD.dim(2);
  for (std::int64_t i = 0; i < tile.rows; ++i) {
    const float inverse = 1.0f / running[i].sum;
    row<float>(p.lse_HT, tile.head)[tile.token + i] =
        std::numbers::ln2_v<float> * (running[i].top + std::log2(running[i].sum));
    const float* from = y_QD + i * size;
    put_row(head_row<BFloat16>(p.y_THD, tile.token + i, tile.head), size, false,
            [=](std::int64_t d) { return from[d] * inverse; });
  }
}

void forward_tile(const ops::Attention& p, const Task& task, const ForwardPieces& at,
                  std::int64_t head, std::int64_t first) {
  const std::int64_t size = p.q_THD.dim(2);
  const std::int64_t all = padded(task.k_count);
  const float scale2 = static_cast<float>(p.scale) * std::numbers::log2e_v<float>;
  const auto tile_at = [&](std::int64_t begin) {
    return tile_of(p, task, head, first, begin, ops::kPairQueryTile, ops::kPairKeyBlock);
  };
  RunningSoftmax2 running[ops::kPairQueryTile];
  Tile tile = tile_at(0);
  copy_rows<BFloat16>(p.q_THD, tile.token, tile.rows, head, at.q);
  for (; tile.keys > 0; tile = tile_at(tile.begin + ops::kPairKeyBlock)) {
    const std::int64_t keys = padded(tile.keys);
    multiply_pairs({.m = tile.rows,
                    .n = keys,
                    .k = size,
                    .a = at.q,
                    .a_row = size,
                    .a_pair = 2,
                    .b = at.k_packed + tile.begin * size,
                    .b_columns = kPackedColumns * size,
                    .c = at.scores,
                    .c_row = keys});
    for (std::int64_t i = 0; i < tile.rows; ++i) {
      const float factor =
          softmax_row_in_place(at.scores + i * keys, scale2, tile.visible(i), keys, running[i]);
      if (tile.begin == 0 || factor == 1.0f) continue;
      for (std::int64_t d = 0; d < size; ++d) at.y[i * size + d] *= factor;
    }
    multiply_pairs({.m = tile.rows,
                    .n = size,
                    .k = keys,
                    .a = reinterpret_cast<const BFloat16*>(at.scores),
                    .a_row = 2 * keys,
                    .a_pair = 2,
                    .b = at.v_packed + tile.begin * kPackedColumns,
                    .b_columns = kPackedColumns * all,
                    .c = at.y,
                    .c_row = size,
                    .accumulate = tile.begin > 0});
  }
  finish_tile(p, tile, at.y, running);
}

}  // namespace

void attention_task_in_pairs(const ops::Attention& p, const Task& task, Pieces pieces) {
  const std::int64_t size = p.q_THD.dim(2);
  const std::int64_t all = padded(task.k_count);
  ForwardPieces at;
  at.scores = pieces.take<float>(ops::kPairQueryTile * std::min(all, ops::kPairKeyBlock));
  at.q = pieces.take<BFloat16>(padded(ops::kPairQueryTile) * size);
  at.y = pieces.take<float>(ops::kPairQueryTile * size);
  at.k_packed = pieces.take<BFloat16>(all * size);
  at.v_packed = pieces.take<BFloat16>(all * size);
  pack_columns(head_row<BFloat16>(p.k_SGD, task.k_begin, task.group), p.k_SGD.row_stride,
               task.k_count, size, all, at.k_packed);
  pack_rows(head_row<BFloat16>(p.v_SGD, task.k_begin, task.group), p.v_SGD.row_stride, task.k_count,
            size, all, at.v_packed);
  for_each_head(p, task, [&](std::int64_t head) {
    for (std::int64_t first = 0; first < task.q_count; first += ops::kPairQueryTile) {
      forward_tile(p, task, at, head, first);
    }
  });
}

}  // namespace medvqa::cpu

#endif
