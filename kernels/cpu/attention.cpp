// Tiled attention: a task is one key/value head of one sample, so that the gradients of keys and
// values are summed by one thread in one order. Scores exist for one tile of query rows at a time.
#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/elements.h"
#include "kernels/cpu/head_product.h"
#include "kernels/cpu/vector_math.h"
#include "medvqa/ops/scratch.h"

namespace medvqa::cpu {

namespace {

constexpr std::int64_t kTile = ops::kAttentionQueryTile;

// Rows [begin, begin + n) of one head as a matrix in the accumulator type.
template <class A>
struct HeadMatrix {
  const A* data;
  std::int64_t stride;
};

template <class T>
T* head_row(const Tensor& t_THD, std::int64_t token, std::int64_t head) {
  return t_THD.as<T>() + token * t_THD.row_stride + head * t_THD.dim(2);
}

// A view if the type is the accumulator's, else a converted copy in `buffer`.
template <class T>
HeadMatrix<Accumulator<T>> head_matrix(const Tensor& t_THD, std::int64_t begin, std::int64_t n,
                                       std::int64_t head, Accumulator<T>* buffer) {
  using A = Accumulator<T>;
  if constexpr (std::is_same_v<T, A>) {
    return {head_row<T>(t_THD, begin, head), t_THD.row_stride};
  } else {
    const std::int64_t size = t_THD.dim(2);
    for (std::int64_t i = 0; i < n; ++i) {
      const T* source = head_row<T>(t_THD, begin + i, head);
      for (std::int64_t d = 0; d < size; ++d) buffer[i * size + d] = load(source[d]);
    }
    return {buffer, size};
  }
}

// Hands out pieces of a thread's share of the scratch memory.
template <class A>
class Pieces {
 public:
  Pieces(const Tensor& scratch, int threads)
      : next_(reinterpret_cast<A*>(static_cast<std::byte*>(scratch.data) +
                                   scratch.elements() / threads * omp_get_thread_num())) {}
  A* take(std::int64_t n) {
    A* piece = next_;
    next_ += n;
    return piece;
  }

 private:
  A* next_;
};

struct Task {
  std::int64_t q_begin, q_count, k_begin, k_count, group;
};

Task task_of(const ops::Attention& p, std::int64_t index) {
  const std::int64_t groups = p.k_SGD.dim(1);
  const std::int64_t sample = index / groups;
  const std::int32_t* cu_q = p.cu_q_N.as<std::int32_t>() + sample;
  const std::int32_t* cu_k = p.cu_k_N.as<std::int32_t>() + sample;
  return {cu_q[0], cu_q[1] - cu_q[0], cu_k[0], cu_k[1] - cu_k[0], index % groups};
}

// Keys a tile of query rows [first, first + rows) may see.
std::int64_t visible_keys(const ops::Attention& p, const Task& task, std::int64_t first,
                          std::int64_t rows) {
  return p.causal ? std::min(task.k_count, first + rows) : task.k_count;
}

// Keys row `i` of the tile may see.
std::int64_t keys_of_row(const ops::Attention& p, std::int64_t first, std::int64_t i,
                         std::int64_t visible) {
  return p.causal ? std::min(visible, first + i + 1) : visible;
}

// Eight running maxima: both compilers turn them into one vector, which a single one is not.
template <class A>
A largest(const A* x, std::int64_t n) {
  constexpr std::int64_t kLanes = 8;
  std::array<A, kLanes> lanes;
  lanes.fill(x[0]);
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::size_t k = 0; k < kLanes; ++k) {
      const A value = x[i + static_cast<std::int64_t>(k)];
      lanes[k] = lanes[k] < value ? value : lanes[k];
    }
  }
  for (; i < n; ++i) lanes[0] = std::max(lanes[0], x[i]);
  return *std::max_element(lanes.begin(), lanes.end());
}

// Scores become exp(score - max); returns log sum exp, and the sum through `sum`.
template <class A>
A softmax_row(A* scores, std::int64_t keys, std::int64_t visible, A& sum) {
  const A top = largest(scores, keys);
  A total = 0;
#pragma omp simd reduction(+ : total)
  for (std::int64_t s = 0; s < keys; ++s) {
    scores[s] = exponential(scores[s] - top);
    total += scores[s];
  }
  std::fill(scores + keys, scores + visible, A(0));
  sum = total;
  return top + std::log(total);
}

template <class T>
void forward_task(const ops::Attention& p, const Task& task, Pieces<Accumulator<T>> pieces) {
  using A = Accumulator<T>;
  constexpr bool kView = std::is_same_v<T, A>;
  const std::int64_t size = p.q_THD.dim(2);
  const std::int64_t shared = p.q_THD.dim(1) / p.k_SGD.dim(1);
  A* scores = pieces.take(kTile * p.max_k);
  A* q_buffer = pieces.take(kTile * size);
  A* y_tile = pieces.take(kTile * size);
  A* k_buffer = kView ? nullptr : pieces.take(p.max_k * size);
  A* v_buffer = kView ? nullptr : pieces.take(p.max_k * size);
  const auto k = head_matrix<T>(p.k_SGD, task.k_begin, task.k_count, task.group, k_buffer);
  const auto v = head_matrix<T>(p.v_SGD, task.k_begin, task.k_count, task.group, v_buffer);
  for (std::int64_t h = task.group * shared; h < (task.group + 1) * shared; ++h) {
    for (std::int64_t first = 0; first < task.q_count; first += kTile) {
      const std::int64_t rows = std::min(kTile, task.q_count - first);
      const std::int64_t visible = visible_keys(p, task, first, rows);
      const std::int64_t token = task.q_begin + first;
      const auto q = head_matrix<T>(p.q_THD, token, rows, h, q_buffer);
      multiply({rows, visible, size, 'N', 'T'}, static_cast<A>(p.scale), q.data, q.stride, k.data,
               k.stride, A(0), scores, visible);
      for (std::int64_t i = 0; i < rows; ++i) {
        A sum = 0;
        A* row_scores = scores + i * visible;
        row<A>(p.lse_HT, h)[token + i] =
            softmax_row(row_scores, keys_of_row(p, first, i, visible), visible, sum);
        const A inverse = A(1) / sum;
        for (std::int64_t s = 0; s < visible; ++s) row_scores[s] *= inverse;
      }
      multiply({rows, size, visible, 'N', 'N'}, A(1), scores, visible, v.data, v.stride, A(0),
               y_tile, size);
      for (std::int64_t i = 0; i < rows; ++i) {
        T* y = head_row<T>(p.y_THD, token + i, h);
        for (std::int64_t d = 0; d < size; ++d) y[d] = static_cast<T>(y_tile[i * size + d]);
      }
    }
  }
}

template <class T>
void put_rows(const ops::GradOut& out, std::int64_t begin, std::int64_t n, std::int64_t head,
              const Accumulator<T>* values) {
  if (!out) return;
  const std::int64_t size = out.tensor.dim(2);
  for (std::int64_t i = 0; i < n; ++i) {
    T* d = head_row<T>(out.tensor, begin + i, head);
    for (std::int64_t c = 0; c < size; ++c) put(d[c], values[i * size + c], out.accumulate);
  }
}

// p_tile = exp(scores - lse); ds_tile = p (dp - delta), where ds_tile holds dp on entry.
template <class T>
void score_gradients(const ops::AttentionBackward& b, std::int64_t first, std::int64_t token,
                     std::int64_t head, std::int64_t rows, std::int64_t visible,
                     Accumulator<T>* p_tile, Accumulator<T>* ds_tile) {
  using A = Accumulator<T>;
  const std::int64_t size = b.dy_THD.dim(2);
  for (std::int64_t i = 0; i < rows; ++i) {
    const T* y = head_row<T>(b.forward.y_THD, token + i, head);
    const T* dy = head_row<T>(b.dy_THD, token + i, head);
    A delta = 0;
    for (std::int64_t d = 0; d < size; ++d) delta += load(y[d]) * load(dy[d]);
    const A lse = row<A>(b.forward.lse_HT, head)[token + i];
    const std::int64_t keys = keys_of_row(b.forward, first, i, visible);
    A* prob = p_tile + i * visible;
    A* ds = ds_tile + i * visible;
    for (std::int64_t s = 0; s < keys; ++s) {
      prob[s] = exponential(prob[s] - lse);
      ds[s] = prob[s] * (ds[s] - delta);
    }
    std::fill(prob + keys, prob + visible, A(0));
    std::fill(ds + keys, ds + visible, A(0));
  }
}

template <class T>
void backward_task(const ops::AttentionBackward& b, const Task& task,
                   Pieces<Accumulator<T>> pieces) {
  using A = Accumulator<T>;
  constexpr bool kView = std::is_same_v<T, A>;
  const ops::Attention& p = b.forward;
  const std::int64_t size = p.q_THD.dim(2);
  const std::int64_t shared = p.q_THD.dim(1) / p.k_SGD.dim(1);
  const A scale = static_cast<A>(p.scale);
  A* p_tile = pieces.take(kTile * p.max_k);
  A* ds_tile = pieces.take(kTile * p.max_k);
  A* q_buffer = pieces.take(kTile * size);
  A* dy_buffer = pieces.take(kTile * size);
  A* dq_tile = pieces.take(2 * kTile * size);
  A* dk = pieces.take(p.max_k * size);
  A* dv = pieces.take(p.max_k * size);
  A* k_buffer = kView ? nullptr : pieces.take(p.max_k * size);
  A* v_buffer = kView ? nullptr : pieces.take(p.max_k * size);
  const auto k = head_matrix<T>(p.k_SGD, task.k_begin, task.k_count, task.group, k_buffer);
  const auto v = head_matrix<T>(p.v_SGD, task.k_begin, task.k_count, task.group, v_buffer);
  std::fill(dk, dk + task.k_count * size, A(0));
  std::fill(dv, dv + task.k_count * size, A(0));
  for (std::int64_t h = task.group * shared; h < (task.group + 1) * shared; ++h) {
    for (std::int64_t first = 0; first < task.q_count; first += kTile) {
      const std::int64_t rows = std::min(kTile, task.q_count - first);
      const std::int64_t keys = visible_keys(p, task, first, rows);
      const std::int64_t token = task.q_begin + first;
      const auto q = head_matrix<T>(p.q_THD, token, rows, h, q_buffer);
      const auto dy = head_matrix<T>(b.dy_THD, token, rows, h, dy_buffer);
      multiply({rows, keys, size, 'N', 'T'}, scale, q.data, q.stride, k.data, k.stride, A(0),
               p_tile, keys);
      multiply({rows, keys, size, 'N', 'T'}, A(1), dy.data, dy.stride, v.data, v.stride, A(0),
               ds_tile, keys);
      score_gradients<T>(b, first, token, h, rows, keys, p_tile, ds_tile);
      multiply({keys, size, rows, 'T', 'N'}, A(1), p_tile, keys, dy.data, dy.stride, A(1), dv,
               size);
      multiply({keys, size, rows, 'T', 'N'}, scale, ds_tile, keys, q.data, q.stride, A(1), dk,
               size);
      if (!b.dq_THD) continue;
      multiply({rows, size, keys, 'N', 'N'}, scale, ds_tile, keys, k.data, k.stride, A(0), dq_tile,
               size);
      put_rows<T>(b.dq_THD, token, rows, h, dq_tile);
    }
  }
  put_rows<T>(b.dk_SGD, task.k_begin, task.k_count, task.group, dk);
  put_rows<T>(b.dv_SGD, task.k_begin, task.k_count, task.group, dv);
}

// Runs f<T>(task, pieces) for every key/value head of every sample.
template <class F>
void for_each_task(const ops::Attention& p, const Tensor& scratch, int threads, F&& f) {
  const std::int64_t tasks = (p.cu_q_N.dim(0) - 1) * p.k_SGD.dim(1);
  dispatch_float(p.q_THD.dtype, [&]<class T>() {
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (tasks > 1)
    for (std::int64_t i = 0; i < tasks; ++i) {
      const Task task = task_of(p, i);
      if (task.q_count == 0 || task.k_count == 0) continue;
      f.template operator()<T>(task, Pieces<Accumulator<T>>(scratch, threads));
    }
  });
}

}  // namespace

void CpuBackend::do_attention(const ops::Attention& p, const Tensor& scratch) {
  for_each_task(p, scratch, traits_.threads,
                [&]<class T>(const Task& task, auto pieces) { forward_task<T>(p, task, pieces); });
}

void CpuBackend::do_attention_backward(const ops::AttentionBackward& p, const Tensor& scratch) {
  for_each_task(p.forward, scratch, traits_.threads,
                [&]<class T>(const Task& task, auto pieces) { backward_task<T>(p, task, pieces); });
}

}  // namespace medvqa::cpu
