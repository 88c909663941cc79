// Tiled attention: a task is one key/value head of one sample, so that the gradients of keys and
// values are summed by one thread in one order. Scores exist for one tile of query rows at a time.
//
// Products read copies of the head in rows that stand one after another, filled up with zeros to
// whole multiples of ops::kAttentionPadding: keys and values once a task (keys transposed: that
// form of the product is half as fast again), queries once a tile.
#include <algorithm>
#include <cmath>
#include <memory>
#include <span>
#include <utility>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/elements.h"
#include "kernels/cpu/head_product.h"
#include "kernels/cpu/vector_clones.h"
#include "kernels/cpu/vector_math.h"
#include "medvqa/ops/scratch.h"

namespace medvqa::cpu {

namespace {

using ops::padded;

constexpr std::int64_t kTile = ops::kAttentionQueryTile;

template <class T>
T* head_row(const Tensor& t_THD, std::int64_t token, std::int64_t head) {
  return t_THD.as<T>() + token * t_THD.row_stride + head * t_THD.dim(2);
}

// Hands out pieces of a thread's share of the scratch memory.
class Pieces {
 public:
  Pieces(const Tensor& scratch, int threads)
      : next_(static_cast<std::byte*>(scratch.data) +
              scratch.elements() / threads * omp_get_thread_num()) {}
  template <class E>
  E* take(std::int64_t n) {
    const std::size_t bytes = static_cast<std::size_t>(n) * sizeof(E);
    return reinterpret_cast<E*>(std::exchange(
        next_, next_ + (bytes + kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment));
  }
  // Where scores go that products read: their own place if they have that type already.
  template <class O, class A>
  O* take_operand(A* scores, std::int64_t n) {
    if constexpr (std::is_same_v<O, A>) {
      return scores;
    } else {
      return take<O>(n);
    }
  }

 private:
  std::byte* next_;
};

struct Task {
  std::int64_t q_begin, q_count, k_begin, k_count, group;
};

// What a thread works with.
struct Worker {
  Pieces pieces;
  MatmulCache& products;
};

Task task_of(const ops::Attention& p, std::int64_t index) {
  const std::int64_t groups = p.k_SGD.dim(1);
  const std::int64_t sample = index / groups;
  const std::int32_t* cu_q = p.cu_q_N.as<std::int32_t>() + sample;
  const std::int32_t* cu_k = p.cu_k_N.as<std::int32_t>() + sample;
  return {cu_q[0], cu_q[1] - cu_q[0], cu_k[0], cu_k[1] - cu_k[0], index % groups};
}

// A tile of one head's query rows, and what it may see of the keys.
struct Tile {
  std::int64_t head, first, rows, token;
  std::int64_t keys;  // of its last row
  bool causal;

  // Keys row `i` may see.
  std::int64_t visible(std::int64_t i) const {
    return causal ? std::min(keys, first + i + 1) : keys;
  }
};

// Calls f(tile) for every tile of the query heads that read the task's key/value head.
template <class F>
void for_each_tile(const ops::Attention& p, const Task& task, F&& f) {
  const std::int64_t shared = p.q_THD.dim(1) / p.k_SGD.dim(1);
  for (std::int64_t h = task.group * shared; h < (task.group + 1) * shared; ++h) {
    for (std::int64_t first = 0; first < task.q_count; first += kTile) {
      const std::int64_t rows = std::min(kTile, task.q_count - first);
      f(Tile{.head = h,
             .first = first,
             .rows = rows,
             .token = task.q_begin + first,
             .keys = p.causal ? std::min(task.k_count, first + rows) : task.k_count,
             .causal = p.causal});
    }
  }
}

// out[i, d] = rows [begin, begin + n) of one head; rows of zeros up to padded(n).
template <class T, class O>
void copy_rows(const Tensor& t_THD, std::int64_t begin, std::int64_t n, std::int64_t head, O* out) {
  const std::int64_t size = t_THD.dim(2);
  for (std::int64_t i = 0; i < n; ++i) {
    const T* source = head_row<T>(t_THD, begin + i, head);
    std::transform(source, source + size, out + i * size, as_operand<T>);
  }
  std::fill(out + n * size, out + padded(n) * size, O(0));
}

// out[d, i] likewise: rows of padded(n), in blocks that fill whole lines of the cache.
template <class T, class O>
void copy_columns(const Tensor& t_THD, std::int64_t begin, std::int64_t n, std::int64_t head,
                  O* out) {
  const std::int64_t size = t_THD.dim(2);
  const std::int64_t stride = t_THD.row_stride;
  const T* source = head_row<T>(t_THD, begin, head);
  for (std::int64_t block = 0; block < n; block += ops::kAttentionPadding) {
    const std::int64_t end = std::min(n, block + ops::kAttentionPadding);
    for (std::int64_t d = 0; d < size; ++d) {
      O* line = out + d * padded(n);
      for (std::int64_t i = block; i < end; ++i) line[i] = as_operand(source[i * stride + d]);
      std::fill(line + end, line + block + ops::kAttentionPadding, O(0));
    }
  }
}

// probabilities = exp(scale * score - top), zero where not visible; returns their sum and log sum.
template <class A, class O>
MEDVQA_VECTOR_CLONES std::pair<A, A> softmax_row(const A* scores, A scale, std::int64_t visible,
                                                 std::int64_t columns, O* probabilities) {
  A top = scores[0];
#pragma omp simd reduction(max : top)
  for (std::int64_t s = 0; s < visible; ++s) top = scores[s] > top ? scores[s] : top;
  top *= scale;
  A total = 0;
#pragma omp simd reduction(+ : total)
  for (std::int64_t s = 0; s < visible; ++s) {
    const A e = exponential(std::fma(scale, scores[s], -top));
    total += e;
    put(probabilities[s], e, false);
  }
  std::fill(probabilities + visible, probabilities + columns, O(0));
  return {total, top + std::log(total)};
}

template <class T>
void forward_task(const ops::Attention& p, const Task& task, Worker worker) {
  using A = Accumulator<T>;
  using O = Operand<T>;
  const std::int64_t size = p.q_THD.dim(2);
  const std::int64_t all = padded(task.k_count);
  A* scores = worker.pieces.take<A>(kTile * all);
  O* probabilities = worker.pieces.take_operand<O>(scores, kTile * all);
  O* q = worker.pieces.take<O>(kTile * size);
  A* y_tile = worker.pieces.take<A>(kTile * size);
  O* k_DS = worker.pieces.take<O>(all * size);
  O* v_SD = worker.pieces.take<O>(all * size);
  copy_columns<T>(p.k_SGD, task.k_begin, task.k_count, task.group, k_DS);
  copy_rows<T>(p.v_SGD, task.k_begin, task.k_count, task.group, v_SD);
  for_each_tile(p, task, [&](const Tile& tile) {
    const std::int64_t rows = padded(tile.rows);
    const std::int64_t keys = padded(tile.keys);
    copy_rows<T>(p.q_THD, tile.token, tile.rows, tile.head, q);
    multiply(worker.products, {.m = rows, .n = keys, .k = size, .ldb = all}, q, k_DS, scores);
    A inverse[kTile];
    for (std::int64_t i = 0; i < tile.rows; ++i) {
      const auto [sum, log_sum] = softmax_row(scores + i * keys, static_cast<A>(p.scale),
                                              tile.visible(i), keys, probabilities + i * keys);
      inverse[i] = A(1) / sum;
      row<A>(p.lse_HT, tile.head)[tile.token + i] = log_sum;
    }
    std::fill(probabilities + tile.rows * keys, probabilities + rows * keys, O(0));
    multiply(worker.products, {.m = rows, .n = size, .k = keys, .ldb = size}, probabilities, v_SD,
             y_tile);
    for (std::int64_t i = 0; i < tile.rows; ++i) {
      T* y = head_row<T>(p.y_THD, tile.token + i, tile.head);
      for (std::int64_t d = 0; d < size; ++d) {
        y[d] = static_cast<T>(y_tile[i * size + d] * inverse[i]);
      }
    }
  });
}

template <class T>
void put_rows(const ops::GradOut& out, std::int64_t begin, std::int64_t n, std::int64_t head,
              Accumulator<T> scale, const Accumulator<T>* values) {
  if (!out) return;
  const std::int64_t size = out.tensor.dim(2);
  for (std::int64_t i = 0; i < n; ++i) {
    T* d = head_row<T>(out.tensor, begin + i, head);
    const Accumulator<T>* v = values + i * size;
    put_row(d, size, out.accumulate, [=](std::int64_t c) { return scale * v[c]; });
  }
}

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

template <class T, class A, class O>
void score_gradients(const ops::AttentionBackward& b, const Tile& tile, const A* scores,
                     const A* dp, O* probabilities, O* ds) {
  const std::int64_t size = b.dy_THD.dim(2);
  const std::int64_t keys = padded(tile.keys);
  const A scale = static_cast<A>(b.forward.scale);
  for (std::int64_t i = 0; i < tile.rows; ++i) {
    const T* y = head_row<T>(b.forward.y_THD, tile.token + i, tile.head);
    const T* dy = head_row<T>(b.dy_THD, tile.token + i, tile.head);
    A delta = 0;
#pragma omp simd reduction(+ : delta)
    for (std::int64_t d = 0; d < size; ++d) delta += load(y[d]) * load(dy[d]);
    const A lse = row<A>(b.forward.lse_HT, tile.head)[tile.token + i];
    const std::int64_t begin = i * keys;
    score_gradient_row(scores + begin, dp + begin, scale, lse, delta, tile.visible(i), keys,
                       probabilities + begin, ds + begin);
  }
  const std::int64_t end = padded(tile.rows) * keys;
  std::fill(probabilities + tile.rows * keys, probabilities + end, O(0));
  std::fill(ds + tile.rows * keys, ds + end, O(0));
}

template <class T>
void backward_task(const ops::AttentionBackward& b, const Task& task, Worker worker) {
  using A = Accumulator<T>;
  using O = Operand<T>;
  const ops::Attention& p = b.forward;
  const std::int64_t size = p.q_THD.dim(2);
  const std::int64_t all = padded(task.k_count);
  const A scale = static_cast<A>(p.scale);
  A* scores = worker.pieces.take<A>(kTile * all);
  A* dp = worker.pieces.take<A>(kTile * all);
  O* probabilities = worker.pieces.take_operand<O>(scores, kTile * all);
  O* ds = worker.pieces.take_operand<O>(dp, kTile * all);
  O* q = worker.pieces.take<O>(kTile * size);
  O* dy = worker.pieces.take<O>(kTile * size);
  A* dq_tile = worker.pieces.take<A>(kTile * size);
  A* dk = worker.pieces.take<A>(all * size);
  A* dv = worker.pieces.take<A>(all * size);
  O* k_DS = worker.pieces.take<O>(all * size);
  O* v_DS = worker.pieces.take<O>(all * size);
  O* k_SD = worker.pieces.take<O>(all * size);
  copy_columns<T>(p.k_SGD, task.k_begin, task.k_count, task.group, k_DS);
  copy_columns<T>(p.v_SGD, task.k_begin, task.k_count, task.group, v_DS);
  copy_rows<T>(p.k_SGD, task.k_begin, task.k_count, task.group, k_SD);
  std::fill(dk, dk + all * size, A(0));
  std::fill(dv, dv + all * size, A(0));
  for_each_tile(p, task, [&](const Tile& tile) {
    const std::int64_t rows = padded(tile.rows);
    const std::int64_t keys = padded(tile.keys);
    copy_rows<T>(p.q_THD, tile.token, tile.rows, tile.head, q);
    copy_rows<T>(b.dy_THD, tile.token, tile.rows, tile.head, dy);
    const HeadProduct by_keys{.m = rows, .n = keys, .k = size, .ldb = all};
    const HeadProduct to_keys{
        .m = keys, .n = size, .k = rows, .ldb = size, .transpose_a = true, .accumulate = true};
    multiply(worker.products, by_keys, q, k_DS, scores);
    multiply(worker.products, by_keys, dy, v_DS, dp);
    score_gradients<T>(b, tile, scores, dp, probabilities, ds);
    if (b.dv_SGD) multiply(worker.products, to_keys, probabilities, dy, dv);
    if (b.dk_SGD) multiply(worker.products, to_keys, ds, q, dk);
    if (!b.dq_THD) return;
    multiply(worker.products, {.m = rows, .n = size, .k = keys, .ldb = size}, ds, k_SD, dq_tile);
    put_rows<T>(b.dq_THD, tile.token, tile.rows, tile.head, scale, dq_tile);
  });
  put_rows<T>(b.dk_SGD, task.k_begin, task.k_count, task.group, scale, dk);
  put_rows<T>(b.dv_SGD, task.k_begin, task.k_count, task.group, A(1), dv);
}

// Rows [begin, begin + n) of one head become zero.
void clear_rows(const Tensor& t_THD, std::int64_t begin, std::int64_t n, std::int64_t head) {
  if (!t_THD) return;
  dispatch_float(t_THD.dtype, [&]<class T>() {
    for (std::int64_t i = 0; i < n; ++i) {
      std::fill_n(head_row<T>(t_THD, begin + i, head), t_THD.dim(2), T(0));
    }
  });
}

// A sample without keys: nothing to read, and nothing flows back.
void clear_outputs(const ops::Attention& p, const Task& task) {
  for_each_tile(p, task, [&](const Tile& tile) {
    clear_rows(p.y_THD, tile.token, tile.rows, tile.head);
    const Tensor lse = p.lse_HT.rows_between(tile.head, tile.head + 1);
    dispatch_float(lse.dtype,
                   [&]<class A>() { std::fill_n(lse.as<A>() + tile.token, tile.rows, A(0)); });
  });
}

void clear_gradients(const ops::AttentionBackward& b, const Task& task) {
  for_each_tile(b.forward, task, [&](const Tile& tile) {
    if (!b.dq_THD.accumulate) clear_rows(b.dq_THD.tensor, tile.token, tile.rows, tile.head);
  });
  for (const ops::GradOut* d : {&b.dk_SGD, &b.dv_SGD}) {
    if (!d->accumulate) clear_rows(d->tensor, task.k_begin, task.k_count, task.group);
  }
}

// Calls f(task, worker) for every key/value head of every sample.
template <class F>
void for_each_task(const ops::Attention& p, const Tensor& scratch,
                   std::span<const std::unique_ptr<MatmulCache>> products, F&& f) {
  const std::int64_t tasks = (p.cu_q_N.dim(0) - 1) * p.k_SGD.dim(1);
  const auto threads = static_cast<int>(products.size());
  const bool parallel = tasks > 1 && worth_threads(p.q_THD.elements() * p.max_k);
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (parallel)
  for (std::int64_t i = 0; i < tasks; ++i) {
    f(task_of(p, i),
      Worker{Pieces(scratch, threads), *products[static_cast<std::size_t>(omp_get_thread_num())]});
  }
}

}  // namespace

void CpuBackend::do_attention(const ops::Attention& p, const Tensor& scratch) {
  dispatch_float(p.q_THD.dtype, [&]<class T>() {
    for_each_task(p, scratch, head_products_, [&](const Task& task, const Worker& worker) {
      if (task.k_count == 0) return clear_outputs(p, task);
      forward_task<T>(p, task, worker);
    });
  });
}

void CpuBackend::do_attention_backward(const ops::AttentionBackward& p, const Tensor& scratch) {
  dispatch_float(p.dy_THD.dtype, [&]<class T>() {
    for_each_task(p.forward, scratch, head_products_, [&](const Task& task, const Worker& worker) {
      if (task.k_count == 0 || task.q_count == 0) return clear_gradients(p, task);
      backward_task<T>(p, task, worker);
    });
  });
}

}  // namespace medvqa::cpu
