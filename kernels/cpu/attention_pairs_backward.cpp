#include "kernels/cpu/attention_pairs.h"

#if MEDVQA_AVX512_BF16

#include <cmath>
#include <limits>
#include <numbers>

#include "kernels/cpu/pair_product.h"
#include "kernels/cpu/pair_softmax.h"

namespace medvqa::cpu {

namespace {

// The memory of a backward task. Q is one query head's, with rows of zeros up to a multiple of 16,
// for which lse2 is infinite: probabilities and gradients of rows that do not exist are zero.
struct BackwardPieces {
  // Of one tile and one block of keys: [Q / 2][S][2], [Q / 2][S][2] and [Q][S].
  BFloat16 *probability_pairs, *gradient_pairs, *gradients;
  float *scores, *dp;  // of a strip
  BFloat16 *q_QD, *dy_QD, *q_packed, *dy_packed;
  float *dq_QD, *lse2_Q, *delta_Q, *dk_SD, *dv_SD;
  BFloat16 *k_columns, *v_columns, *k_rows;  // packed
};

// delta_Q[i] = sum_D(dy y) of one head.
void prepare_head(const ops::AttentionBackward& b, const Task& task, std::int64_t head,
                  const BackwardPieces& at) {
  const std::int64_t size = b.dy_THD.dim(2);
  const std::int64_t queries = padded(task.q_count);
  copy_rows<BFloat16>(b.forward.q_THD, task.q_begin, task.q_count, head, at.q_QD);
  copy_rows<BFloat16>(b.dy_THD, task.q_begin, task.q_count, head, at.dy_QD);
  pack_rows(at.q_QD, size, queries, size, queries, at.q_packed);
  pack_rows(at.dy_QD, size, queries, size, queries, at.dy_packed);
  const float* lse = row<float>(b.forward.lse_HT, head) + task.q_begin;
  for (std::int64_t i = 0; i < task.q_count; ++i) {
    const BFloat16* y = head_row<BFloat16>(b.forward.y_THD, task.q_begin + i, head);
    const BFloat16* dy = at.dy_QD + i * size;
    float delta = 0;
#pragma omp simd reduction(+ : delta)
    for (std::int64_t d = 0; d < size; ++d) delta += load(y[d]) * load(dy[d]);
    at.delta_Q[i] = delta;
    at.lse2_Q[i] = lse[i] * std::numbers::log2e_v<float>;
  }
  std::fill(at.delta_Q + task.q_count, at.delta_Q + queries, 0.0f);
  std::fill(at.lse2_Q + task.q_count, at.lse2_Q + queries, std::numeric_limits<float>::infinity());
}

// Scores and dp of a few rows and keys, which the first-level cache holds; at once what the three
// products after them read.
void strip_gradients(const ops::AttentionBackward& b, const Tile& tile, const BackwardPieces& at,
                     std::int64_t row, std::int64_t rows, std::int64_t key, std::int64_t columns) {
  const std::int64_t size = b.dy_THD.dim(2);
  const std::int64_t keys = padded(tile.keys);
  const std::int64_t query = tile.first + row;
  PairProduct product{.m = rows,
                      .n = columns,
                      .k = size,
                      .a = at.q_QD + query * size,
                      .a_row = size,
                      .a_pair = 2,
                      .b = at.k_columns + (tile.begin + key) * size,
                      .b_columns = kPackedColumns * size,
                      .c = at.scores,
                      .c_row = columns};
  multiply_pairs(product);
  product.a = at.dy_QD + query * size;
  product.b = at.v_columns + (tile.begin + key) * size;
  product.c = at.dp;
  multiply_pairs(product);
  const float scale2 = static_cast<float>(b.forward.scale) * std::numbers::log2e_v<float>;
  for (std::int64_t i = 0; i < rows; i += 2) {
    const std::int64_t pairs = (row + i) * keys + 2 * key;
    BFloat16* gradients = at.gradients + (row + i) * keys + key;
    score_gradients({.scores = at.scores + i * columns,
                     .dp = at.dp + i * columns,
                     .row = columns,
                     .lse2 = at.lse2_Q + query + i,
                     .delta = at.delta_Q + query + i,
                     .visible = {tile.visible(row + i) - key, tile.visible(row + i + 1) - key},
                     .probability_pairs = at.probability_pairs + pairs,
                     .gradient_pairs = at.gradient_pairs + pairs,
                     .gradients = {gradients, gradients + keys}},
                    scale2, columns);
  }
}

void backward_tile(const ops::AttentionBackward& b, const Task& task, const Tile& tile,
                   const BackwardPieces& at) {
  const std::int64_t size = b.dy_THD.dim(2);
  const std::int64_t rows = (tile.rows + 1) / 2 * 2;
  const std::int64_t keys = padded(tile.keys);
  for (std::int64_t key = 0; key < keys; key += ops::kPairStripKeys) {
    const std::int64_t columns = std::min(keys - key, ops::kPairStripKeys);
    for (std::int64_t i = 0; i < rows; i += ops::kPairStripRows) {
      strip_gradients(b, tile, at, i, std::min(rows - i, ops::kPairStripRows), key, columns);
    }
  }
  const std::int64_t to = tile.begin * size;
  PairProduct to_keys{.m = keys,
                      .n = size,
                      .k = rows,
                      .a = at.probability_pairs,
                      .a_row = 2,
                      .a_pair = 2 * keys,
                      .b = at.dy_packed + tile.first * kPackedColumns,
                      .b_columns = kPackedColumns * padded(task.q_count),
                      .c = at.dv_SD + to,
                      .c_row = size,
                      .accumulate = true};
  if (b.dv_SGD) multiply_pairs(to_keys);
  to_keys.a = at.gradient_pairs;
  to_keys.b = at.q_packed + tile.first * kPackedColumns;
  to_keys.c = at.dk_SD + to;
  if (b.dk_SGD) multiply_pairs(to_keys);
  if (!b.dq_THD) return;
  multiply_pairs({.m = tile.rows,
                  .n = size,
                  .k = keys,
                  .a = at.gradients,
                  .a_row = keys,
                  .a_pair = 2,
                  .b = at.k_rows + tile.begin * kPackedColumns,
                  .b_columns = kPackedColumns * padded(task.k_count),
                  .c = at.dq_QD + tile.first * size,
                  .c_row = size,
                  .accumulate = tile.begin > 0});
}

BackwardPieces take_pieces(const ops::AttentionBackward& b, const Task& task, Pieces pieces) {
  const std::int64_t size = b.dy_THD.dim(2);
  const std::int64_t queries = padded(task.q_count);
  const std::int64_t keys = padded(task.k_count);
  const std::int64_t tile = ops::kPairQueryTile * std::min(keys, ops::kPairKeyBlock);
  const std::int64_t strip = ops::kPairStripRows * ops::kPairStripKeys;
  BackwardPieces at;
  for (BFloat16** p : {&at.probability_pairs, &at.gradient_pairs, &at.gradients}) {
    *p = pieces.take<BFloat16>(tile);
  }
  for (float** p : {&at.scores, &at.dp}) *p = pieces.take<float>(strip);
  for (BFloat16** p : {&at.q_QD, &at.dy_QD, &at.q_packed, &at.dy_packed}) {
    *p = pieces.take<BFloat16>(queries * size);
  }
  at.dq_QD = pieces.take<float>(queries * size);
  for (float** p : {&at.lse2_Q, &at.delta_Q}) *p = pieces.take<float>(queries);
  for (float** p : {&at.dk_SD, &at.dv_SD}) *p = pieces.take<float>(keys * size);
  for (BFloat16** p : {&at.k_columns, &at.v_columns, &at.k_rows}) {
    *p = pieces.take<BFloat16>(keys * size);
  }
  return at;
}

}  // namespace

void attention_backward_task_in_pairs(const ops::AttentionBackward& b, const Task& task,
                                      Pieces pieces) {
  const ops::Attention& p = b.forward;
  const std::int64_t size = p.q_THD.dim(2);
  const std::int64_t all = padded(task.k_count);
  const BackwardPieces at = take_pieces(b, task, pieces);
  const BFloat16* k = head_row<BFloat16>(p.k_SGD, task.k_begin, task.group);
  const BFloat16* v = head_row<BFloat16>(p.v_SGD, task.k_begin, task.group);
  pack_columns(k, p.k_SGD.row_stride, task.k_count, size, all, at.k_columns);
  pack_columns(v, p.v_SGD.row_stride, task.k_count, size, all, at.v_columns);
  pack_rows(k, p.k_SGD.row_stride, task.k_count, size, all, at.k_rows);
  std::fill_n(at.dk_SD, all * size, 0.0f);
  std::fill_n(at.dv_SD, all * size, 0.0f);
  const float scale = static_cast<float>(p.scale);
  for_each_head(p, task, [&](std::int64_t head) {
    prepare_head(b, task, head, at);
    // All tiles meet one block before the next: its gradients stay in the cache.
    for (std::int64_t begin = 0; begin < task.k_count; begin += ops::kPairKeyBlock) {
      for (std::int64_t first = 0; first < task.q_count; first += ops::kPairQueryTile) {
        const Tile tile =
            tile_of(p, task, head, first, begin, ops::kPairQueryTile, ops::kPairKeyBlock);
        if (tile.keys > 0) backward_tile(b, task, tile, at);
      }
    }
    put_rows<BFloat16>(b.dq_THD, task.q_begin, task.q_count, head, scale, at.dq_QD);
  });
  put_rows<BFloat16>(b.dk_SGD, task.k_begin, task.k_count, task.group, scale, at.dk_SD);
  put_rows<BFloat16>(b.dv_SGD, task.k_begin, task.k_count, task.group, 1.0f, at.dv_SD);
}

}  // namespace medvqa::cpu

#endif
