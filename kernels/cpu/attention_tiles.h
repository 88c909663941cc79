// Tiled attention: a task is one key/value head of one sample, so that the gradients of keys and
// values are summed by one thread in one order. Scores exist for one tile of query rows and one
// block of keys at a time, which the second-level cache holds.
//
// Products read copies of the head in rows that stand one after another, filled up with zeros to
// whole multiples of ops::kAttentionPadding: keys and values once a task (keys transposed: that
// form of the product is half as fast again), queries once a tile.
//
// Where the processor multiplies pairs of bf16, attention_pairs.h has its own form of a task.
#pragma once

#include <algorithm>
#include <memory>
#include <span>
#include <utility>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/elements.h"
#include "kernels/cpu/head_product.h"
#include "medvqa/ops/scratch.h"

namespace medvqa::cpu {

using ops::padded;

inline constexpr std::int64_t kTile = ops::kAttentionQueryTile;
inline constexpr std::int64_t kBlock = ops::kAttentionKeyBlock;

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

inline Task task_of(const ops::Attention& p, std::int64_t index) {
  const std::int64_t groups = p.k_SGD.dim(1);
  const std::int64_t sample = index / groups;
  const std::int32_t* cu_q = p.cu_q_N.as<std::int32_t>() + sample;
  const std::int32_t* cu_k = p.cu_k_N.as<std::int32_t>() + sample;
  return {cu_q[0], cu_q[1] - cu_q[0], cu_k[0], cu_k[1] - cu_k[0], index % groups};
}

// Rows of one head's queries against keys [begin, begin + keys).
struct Tile {
  std::int64_t head, first, rows, token;
  std::int64_t begin, keys;
  bool causal;

  // Of these keys, how many row `i` may see.
  std::int64_t visible(std::int64_t i) const {
    return causal ? std::clamp(first + i + 1 - begin, std::int64_t{0}, keys) : keys;
  }
};

// At most so many rows from `first` on against the keys from `begin` on; none of these if the tile
// sees none.
inline Tile tile_of(const ops::Attention& p, const Task& task, std::int64_t head,
                    std::int64_t first, std::int64_t begin, std::int64_t most_rows = kTile,
                    std::int64_t most_keys = kBlock) {
  const std::int64_t rows = std::min(most_rows, task.q_count - first);
  const std::int64_t seen = p.causal ? std::min(task.k_count, first + rows) : task.k_count;
  return {.head = head,
          .first = first,
          .rows = rows,
          .token = task.q_begin + first,
          .begin = begin,
          .keys = std::clamp(seen - begin, std::int64_t{0}, most_keys),
          .causal = p.causal};
}

// Calls f(head) for every query head that reads the task's key/value head.
template <class F>
void for_each_head(const ops::Attention& p, const Task& task, F&& f) {
  const std::int64_t shared = p.q_THD.dim(1) / p.k_SGD.dim(1);
  for (std::int64_t h = task.group * shared; h < (task.group + 1) * shared; ++h) f(h);
}

// out[i, d] = rows [begin, begin + n) of one head; rows of zeros up to padded(n).
template <class T, class O>
void copy_rows(const Tensor& t_THD, std::int64_t begin, std::int64_t n, std::int64_t head, O* out) {
  const std::int64_t size = t_THD.dim(2);
  for (std::int64_t i = 0; i < n; ++i) {
    const T* source = head_row<T>(t_THD, begin + i, head);
    if constexpr (std::is_same_v<T, O>) {
      std::copy_n(source, size, out + i * size);
    } else {
      std::transform(source, source + size, out + i * size, as_operand<T>);
    }
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

// Rows [begin, begin + n) of one head = scale * values, or += that.
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

// Rows [begin, begin + n) of one head become zero.
inline void clear_rows(const Tensor& t_THD, std::int64_t begin, std::int64_t n, std::int64_t head) {
  if (!t_THD) return;
  dispatch_float(t_THD.dtype, [&]<class T>() {
    for (std::int64_t i = 0; i < n; ++i) {
      std::fill_n(head_row<T>(t_THD, begin + i, head), t_THD.dim(2), T(0));
    }
  });
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

}  // namespace medvqa::cpu
