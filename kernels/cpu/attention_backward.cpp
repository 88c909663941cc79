// The backward: scores are made again, block by block; see attention_tiles.h.
#include <cmath>

#include "kernels/cpu/attention_pairs.h"
#include "kernels/cpu/attention_tiles.h"
#include "kernels/cpu/vector_clones.h"
#include "kernels/cpu/vector_math.h"

namespace medvqa::cpu {

namespace {

// probabilities = exp(scale * scores - lse);  ds = probabilities * (dp - delta).
template <class A, class O>
MEDVQA_VECTOR_CLONES void score_gradient_row(const A* scores, const A* dp, A scale, A lse, A delta,
                                             std::int64_t visible, std::int64_t columns,
                                             O* probabilities, O* ds) {
#pragma omp simd
  for (std::int64_t s = 0; s < visible; ++s) {
    const A probability = exponential(std::fma(scale, scores[s], -lse));
    const A gradient = probability * (dp[s] - delta);
    put(probabilities[s], probability, false);
    put(ds[s], gradient, false);
  }
  std::fill(probabilities + visible, probabilities + columns, O(0));
  std::fill(ds + visible, ds + columns, O(0));
}

// delta_Q[i] = sum_D(dy y) of one head.
template <class T>
void row_deltas(const ops::AttentionBackward& b, const Task& task, std::int64_t head,
                Accumulator<T>* delta_Q) {
  const std::int64_t size = b.dy_THD.dim(2);
  for (std::int64_t i = 0; i < task.q_count; ++i) {
    const T* y = head_row<T>(b.forward.y_THD, task.q_begin + i, head);
    const T* dy = head_row<T>(b.dy_THD, task.q_begin + i, head);
    Accumulator<T> delta = 0;
#pragma omp simd reduction(+ : delta)
    for (std::int64_t d = 0; d < size; ++d) delta += load(y[d]) * load(dy[d]);
    delta_Q[i] = delta;
  }
}

// The memory of a backward task. Q is one query head's.
template <class T>
struct BackwardPieces {
  using A = Accumulator<T>;
  using O = Operand<T>;
  A *scores, *dp, *dq_QD, *delta_Q, *dk_SD, *dv_SD;
  O *probabilities, *ds, *q_QD, *dy_QD, *k_DS, *v_DS, *k_SD;
};

template <class T>
void score_gradients(const ops::AttentionBackward& b, const Tile& tile,
                     const BackwardPieces<T>& at) {
  using A = Accumulator<T>;
  using O = Operand<T>;
  const std::int64_t keys = padded(tile.keys);
  const A* lse = row<A>(b.forward.lse_HT, tile.head) + tile.token;
  for (std::int64_t i = 0; i < tile.rows; ++i) {
    const std::int64_t begin = i * keys;
    score_gradient_row(at.scores + begin, at.dp + begin, static_cast<A>(b.forward.scale), lse[i],
                       at.delta_Q[tile.first + i], tile.visible(i), keys, at.probabilities + begin,
                       at.ds + begin);
  }
  const std::int64_t end = padded(tile.rows) * keys;
  std::fill(at.probabilities + tile.rows * keys, at.probabilities + end, O(0));
  std::fill(at.ds + tile.rows * keys, at.ds + end, O(0));
}

template <class T>
void backward_tile(const ops::AttentionBackward& b, const Tile& tile, std::int64_t all,
                   const BackwardPieces<T>& at, MatmulCache& products) {
  const std::int64_t size = b.dy_THD.dim(2);
  const std::int64_t rows = padded(tile.rows);
  const std::int64_t keys = padded(tile.keys);
  const Operand<T>* q = at.q_QD + tile.first * size;
  const Operand<T>* dy = at.dy_QD + tile.first * size;
  const HeadProduct by_keys{.m = rows, .n = keys, .k = size, .ldb = all};
  const HeadProduct to_keys{
      .m = keys, .n = size, .k = rows, .ldb = size, .transpose_a = true, .accumulate = true};
  const HeadProduct to_queries{
      .m = rows, .n = size, .k = keys, .ldb = size, .accumulate = tile.begin > 0};
  multiply(products, by_keys, q, at.k_DS + tile.begin, at.scores);
  multiply(products, by_keys, dy, at.v_DS + tile.begin, at.dp);
  score_gradients<T>(b, tile, at);
  const std::int64_t to = tile.begin * size;
  if (b.dv_SGD) multiply(products, to_keys, at.probabilities, dy, at.dv_SD + to);
  if (b.dk_SGD) multiply(products, to_keys, at.ds, q, at.dk_SD + to);
  if (b.dq_THD) {
    multiply(products, to_queries, at.ds, at.k_SD + to, at.dq_QD + tile.first * size);
  }
}

template <class T>
void backward_task(const ops::AttentionBackward& b, const Task& task, Worker worker) {
  using A = Accumulator<T>;
  using O = Operand<T>;
  const ops::Attention& p = b.forward;
  const std::int64_t size = p.q_THD.dim(2);
  const std::int64_t all = padded(task.k_count);
  const std::int64_t scores = kTile * std::min(all, kBlock);
  BackwardPieces<T> at;
  at.scores = worker.pieces.take<A>(scores);
  at.dp = worker.pieces.take<A>(scores);
  at.probabilities = worker.pieces.take_operand<O>(at.scores, scores);
  at.ds = worker.pieces.take_operand<O>(at.dp, scores);
  at.q_QD = worker.pieces.take<O>(padded(task.q_count) * size);
  at.dy_QD = worker.pieces.take<O>(padded(task.q_count) * size);
  at.dq_QD = worker.pieces.take<A>(padded(task.q_count) * size);
  at.delta_Q = worker.pieces.take<A>(padded(task.q_count));
  at.dk_SD = worker.pieces.take<A>(all * size);
  at.dv_SD = worker.pieces.take<A>(all * size);
  at.k_DS = worker.pieces.take<O>(all * size);
  at.v_DS = worker.pieces.take<O>(all * size);
  at.k_SD = worker.pieces.take<O>(all * size);
  copy_columns<T>(p.k_SGD, task.k_begin, task.k_count, task.group, at.k_DS);
  copy_columns<T>(p.v_SGD, task.k_begin, task.k_count, task.group, at.v_DS);
  copy_rows<T>(p.k_SGD, task.k_begin, task.k_count, task.group, at.k_SD);
  std::fill(at.dk_SD, at.dk_SD + all * size, A(0));
  std::fill(at.dv_SD, at.dv_SD + all * size, A(0));
  const A scale = static_cast<A>(p.scale);
  for_each_head(p, task, [&](std::int64_t head) {
    copy_rows<T>(p.q_THD, task.q_begin, task.q_count, head, at.q_QD);
    copy_rows<T>(b.dy_THD, task.q_begin, task.q_count, head, at.dy_QD);
    row_deltas<T>(b, task, head, at.delta_Q);
    // All tiles meet one block before the next: its gradients stay in the cache.
    for (std::int64_t begin = 0; begin < task.k_count; begin += kBlock) {
      for (std::int64_t first = 0; first < task.q_count; first += kTile) {
        const Tile tile = tile_of(p, task, head, first, begin);
        if (tile.keys > 0) backward_tile<T>(b, tile, all, at, worker.products);
      }
    }
    put_rows<T>(b.dq_THD, task.q_begin, task.q_count, head, scale, at.dq_QD);
  });
  put_rows<T>(b.dk_SGD, task.k_begin, task.k_count, task.group, scale, at.dk_SD);
  put_rows<T>(b.dv_SGD, task.k_begin, task.k_count, task.group, A(1), at.dv_SD);
}

// A sample without keys or queries: nothing flows back.
void clear_gradients(const ops::AttentionBackward& b, const Task& task) {
  if (!b.dq_THD.accumulate) {
    for_each_head(b.forward, task, [&](std::int64_t head) {
      clear_rows(b.dq_THD.tensor, task.q_begin, task.q_count, head);
    });
  }
  for (const ops::GradOut* d : {&b.dk_SGD, &b.dv_SGD}) {
    if (!d->accumulate) clear_rows(d->tensor, task.k_begin, task.k_count, task.group);
  }
}

}  // namespace

void CpuBackend::do_attention_backward(const ops::AttentionBackward& p, const Tensor& scratch) {
  const bool in_pairs = ops::attention_in_pairs(p.forward, traits_);
  dispatch_float(p.dy_THD.dtype, [&]<class T>() {
    for_each_task(p.forward, scratch, head_products_, [&](const Task& task, const Worker& worker) {
      if (task.k_count == 0 || task.q_count == 0) return clear_gradients(p, task);
#if MEDVQA_AVX512_BF16
      if (in_pairs) return attention_backward_task_in_pairs(p, task, worker.pieces);
#endif
      backward_task<T>(p, task, worker);
    });
  });
}

}  // namespace medvqa::cpu
