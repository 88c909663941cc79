// The forward, with a running softmax over blocks of keys; see attention_tiles.h.
#include <cmath>
#include <limits>

#include "kernels/cpu/attention_pairs.h"
#include "kernels/cpu/attention_tiles.h"
#include "kernels/cpu/vector_clones.h"
#include "kernels/cpu/vector_math.h"

namespace medvqa::cpu {

namespace {

// What is known of a row's softmax after some blocks of keys.   Milakov & Gimelshein 2018
template <class A>
struct RunningSoftmax {
  A top = -std::numeric_limits<A>::infinity();  // of the scaled scores
  A sum = 0;                                    // of exp(scaled score - top)
};

// probabilities = exp(scale * score - top), zero where not visible, for the row's top so far;
// returns what everything summed before must be multiplied by.
template <class A, class O>
MEDVQA_VECTOR_CLONES A softmax_row(const A* scores, A scale, std::int64_t visible,
                                   std::int64_t columns, O* probabilities,
                                   RunningSoftmax<A>& running) {
  A top = scores[0];
#pragma omp simd reduction(max : top)
  for (std::int64_t s = 0; s < visible; ++s) top = scores[s] > top ? scores[s] : top;
  top = visible == 0 ? running.top : std::max(running.top, scale * top);
  A total = 0;
#pragma omp simd reduction(+ : total)
  for (std::int64_t s = 0; s < visible; ++s) {
    const A e = exponential(std::fma(scale, scores[s], -top));
    total += e;
    put(probabilities[s], e, false);
  }
  std::fill(probabilities + visible, probabilities + columns, O(0));
  const A factor = running.top == top ? A(1) : std::exp(running.top - top);
  running = {top, running.sum * factor + total};
  return factor;
}

// The memory of a forward task.
template <class T>
struct ForwardPieces {
  using A = Accumulator<T>;
  using O = Operand<T>;
  A *scores, *y;
  O *probabilities, *q, *k_DS, *v_SD;
};

template <class T>
void forward_tile(const ops::Attention& p, const Task& task, const ForwardPieces<T>& at,
                  MatmulCache& products, std::int64_t head, std::int64_t first) {
  using A = Accumulator<T>;
  using O = Operand<T>;
  const std::int64_t size = p.q_THD.dim(2);
  RunningSoftmax<A> running[kTile];
  Tile tile = tile_of(p, task, head, first, 0);
  const std::int64_t rows = padded(tile.rows);
  copy_rows<T>(p.q_THD, tile.token, tile.rows, head, at.q);
  for (; tile.keys > 0; tile = tile_of(p, task, head, first, tile.begin + kBlock)) {
    const std::int64_t keys = padded(tile.keys);
    multiply(products, {.m = rows, .n = keys, .k = size, .ldb = padded(task.k_count)}, at.q,
             at.k_DS + tile.begin, at.scores);
    for (std::int64_t i = 0; i < tile.rows; ++i) {
      const A factor = softmax_row(at.scores + i * keys, static_cast<A>(p.scale), tile.visible(i),
                                   keys, at.probabilities + i * keys, running[i]);
      if (tile.begin == 0 || factor == A(1)) continue;
      for (std::int64_t d = 0; d < size; ++d) at.y[i * size + d] *= factor;
    }
    std::fill(at.probabilities + tile.rows * keys, at.probabilities + rows * keys, O(0));
    multiply(products, {.m = rows, .n = size, .k = keys, .ldb = size, .accumulate = tile.begin > 0},
             at.probabilities, at.v_SD + tile.begin * size, at.y);
  }
  for (std::int64_t i = 0; i < tile.rows; ++i) {
    const A inverse = A(1) / running[i].sum;
    row<A>(p.lse_HT, head)[tile.token + i] = running[i].top + std::log(running[i].sum);
    T* y = head_row<T>(p.y_THD, tile.token + i, head);
    for (std::int64_t d = 0; d < size; ++d) y[d] = static_cast<T>(at.y[i * size + d] * inverse);
  }
}

template <class T>
void forward_task(const ops::Attention& p, const Task& task, Worker worker) {
  using A = Accumulator<T>;
  using O = Operand<T>;
  const std::int64_t size = p.q_THD.dim(2);
  const std::int64_t all = padded(task.k_count);
  ForwardPieces<T> at;
  at.scores = worker.pieces.take<A>(kTile * std::min(all, kBlock));
  at.probabilities = worker.pieces.take_operand<O>(at.scores, kTile * std::min(all, kBlock));
  at.q = worker.pieces.take<O>(kTile * size);
  at.y = worker.pieces.take<A>(kTile * size);
  at.k_DS = worker.pieces.take<O>(all * size);
  at.v_SD = worker.pieces.take<O>(all * size);
  copy_columns<T>(p.k_SGD, task.k_begin, task.k_count, task.group, at.k_DS);
  copy_rows<T>(p.v_SGD, task.k_begin, task.k_count, task.group, at.v_SD);
  for_each_head(p, task, [&](std::int64_t head) {
    for (std::int64_t first = 0; first < task.q_count; first += kTile) {
      forward_tile<T>(p, task, at, worker.products, head, first);
    }
  });
}

// A sample without keys: nothing to read.
void clear_outputs(const ops::Attention& p, const Task& task) {
  for_each_head(p, task, [&](std::int64_t head) {
    clear_rows(p.y_THD, task.q_begin, task.q_count, head);
    const Tensor lse = p.lse_HT.rows_between(head, head + 1);
    dispatch_float(lse.dtype,
                   [&]<class A>() { std::fill_n(lse.as<A>() + task.q_begin, task.q_count, A(0)); });
  });
}

}  // namespace

void CpuBackend::do_attention(const ops::Attention& p, const Tensor& scratch) {
  const bool in_pairs = ops::attention_in_pairs(p, traits_);
  dispatch_float(p.q_THD.dtype, [&]<class T>() {
    for_each_task(p, scratch, head_products_, [&](const Task& task, const Worker& worker) {
      if (task.k_count == 0) return clear_outputs(p, task);
#if MEDVQA_AVX512_BF16
      if (in_pairs) return attention_task_in_pairs(p, task, worker.pieces);
#endif
      forward_task<T>(p, task, worker);
    });
  });
}

}  // namespace medvqa::cpu
