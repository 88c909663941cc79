// Softmax attention in one pass over tiles of keys: scores live in registers, the largest score and
// the sum of a row so far (the "online softmax", Dao et al. 2022) with them.
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/device/attention_fragments.h"
#include "kernels/cuda/device/attention_scalar.h"

namespace medvqa::cuda {

namespace {

// The state of one row's softmax. Exponentials are powers of two of scores in units of log2(e):
// factor = scale * log2(e).
struct SoftmaxRow {
  float top = -INFINITY;  // the largest score so far, before scaling
  float sum = 0;          // of exponentials against `top`: this thread's part

  // Takes a new largest score; returns what all sums so far must be multiplied by.
  __device__ float raise(float largest, float factor) {
    const float higher = fmaxf(top, largest);
    const float correction = exp2f(fmaf(top, factor, -higher * factor));
    top = higher;
    sum *= correction;
    return correction;
  }
  __device__ float exponential(float score, float factor) {
    const float e = exp2f(fmaf(score, factor, -top * factor));
    sum += e;
    return e;
  }
};

// Without keys there is no sum: results are zero then.
__device__ float inverse_of(float sum) {
  return sum == 0 ? 0.0f : 1.0f / sum;
}
__device__ float log_sum(float top, float sum, float factor) {
  return sum == 0 ? 0.0f : fmaf(top * factor, kLn2, logf(sum));
}

template <class T, int kColumns>
__global__ void __launch_bounds__(scalar::kThreads, 3)
    attention_scalar_kernel(AttentionArguments<T> p, Heads<T> y_THD) {
  using namespace scalar;
  __shared__ Square a, b;
  __shared__ Wide<kColumns> values;
  const Sample sample = sample_of(p, blockIdx.z);
  const int first = static_cast<int>(blockIdx.x) * kTile;
  if (first >= sample.q_count) return;
  const Share share(p.size, kColumns);
  const int rows = lesser(kTile, sample.q_count - first);
  const int group = share.head / p.shared;
  const auto q = rows_of(p.q, sample.q_begin + first, rows, share.head, p.size);
  const auto k = rows_of(p.k, sample.k_begin, sample.k_count, group, p.size);
  const auto v = rows_of(p.v, sample.k_begin, sample.k_count, group, p.size);
  const Place at;
  const float factor = p.scale * kLog2E;
  SoftmaxRow softmax[2];
  Result<kColumns> y;
  const int keys = sample.visible(first + rows - 1);
  for (int key = 0; key < keys; key += kTile) {
    float s[2][2];
    multiply_rows(q, k.from(key), p.size, a, b, s);
    __syncthreads();  // a takes the probabilities
    for (int i = 0; i < 2; ++i) {
      const int visible = sample.visible(first + at.row(i)) - key;
      for (int j = 0; j < 2; ++j) s[i][j] = at.column(j) < visible ? s[i][j] : -INFINITY;
      y.scale(i, softmax[i].raise(row_max(fmaxf(s[i][0], s[i][1])), factor));
      for (int j = 0; j < 2; ++j) s[i][j] = softmax[i].exponential(s[i][j], factor);
    }
    store_square(s, a);
    load_columns(v.from(key), share.begin, share.width, values);
    __syncthreads();
    y.add_product(a, values, share.width, keys - key);
  }
  for (int i = 0; i < 2; ++i) {
    const float sum = row_sum(softmax[i].sum);
    y.scale(i, inverse_of(sum));
    if (share.begin != 0 || at.tx != 0 || at.row(i) >= rows) continue;
    p.lse[share.head * p.lse_stride + sample.q_begin + first + at.row(i)] =
        log_sum(softmax[i].top, sum, factor);
  }
  y.put_rows(rows_of(y_THD, sample.q_begin + first, rows, share.head, p.size), share.begin,
             share.width, false);
}

// Keys from `visible` on, of rows 0 and 1, no longer count.
template <int N>
__device__ void hide(float (&s)[N][4], int visible_0, int visible_1) {
  const fragments::Place at;
#pragma unroll
  for (int n = 0; n < N; ++n) {
    for (int j = 0; j < 2; ++j) {
      if (at.column(n, j) >= visible_0) s[n][j] = -INFINITY;
      if (at.column(n, j) >= visible_1) s[n][2 + j] = -INFINITY;
    }
  }
}

// Row I's scores become exponentials; returns the correction of its sums so far.
template <int I, int N>
__device__ float raise(SoftmaxRow& row, float (&s)[N][4], float factor) {
  float largest = s[0][2 * I];
#pragma unroll
  for (int n = 0; n < N; ++n) largest = fmaxf(largest, fmaxf(s[n][2 * I], s[n][2 * I + 1]));
  const float correction = row.raise(fragments::row_max(largest), factor);
#pragma unroll
  for (int n = 0; n < N; ++n) {
    for (int j = 2 * I; j < 2 * I + 2; ++j) s[n][j] = row.exponential(s[n][j], factor);
  }
  return correction;
}

// 64 query rows of a head. One tile of keys and one of values lie in shared memory; either is
// loaded while the other is at work. Queries pass through the keys' tile into registers.
template <class T, int D>
__global__ void __launch_bounds__(fragments::kThreads, fragments::kBlocksAtOnce<D>)
    attention_fragment_kernel(AttentionArguments<T> p, Heads<T> y_THD) {
  using namespace fragments;
  constexpr int kKeys = kBlockRows;
  T* k_tile = dynamic_shared<T>();
  T* v_tile = k_tile + kKeys * kStride<D>;
  const Sample sample = sample_of(p, blockIdx.z);
  // With a causal mask later rows see more: the blocks with most work start first.
  const int first = static_cast<int>(gridDim.x - 1 - blockIdx.x) * kBlockRows;
  if (first >= sample.q_count) return;
  const int head = static_cast<int>(blockIdx.y), group = head / p.shared;
  const int rows = lesser(kBlockRows, sample.q_count - first);
  const auto k = rows_of(p.k, sample.k_begin, sample.k_count, group, D);
  const auto v = rows_of(p.v, sample.k_begin, sample.k_count, group, D);
  const Place at;
  const float factor = p.scale * kLog2E;
  RowsInRegisters<T, D> q;
  begin_load<D, kBlockRows>(rows_of(p.q, sample.q_begin + first, rows, head, D), k_tile);
  cp_async_commit();
  cp_async_wait<0>();
  __syncthreads();
  q.read(k_tile + at.first_row * kStride<D>);
  __syncthreads();
  begin_load<D, kKeys>(k, k_tile);
  cp_async_commit();
  SoftmaxRow softmax[2];
  float y[D / 8][4] = {};
  const int keys = sample.visible(first + rows - 1);
  for (int key = 0; key < keys; key += kKeys) {
    cp_async_wait<0>();
    __syncthreads();  // keys are there, and nobody reads the values before any more
    begin_load<D, kKeys>(v.from(key), v_tile);
    cp_async_commit();
    float s[kKeys / 8][4];
    multiply_rows<D>(q, k_tile, s);
    if (key + kKeys > sample.visible(first)) {
      hide(s, sample.visible(first + at.row(0)) - key, sample.visible(first + at.row(1)) - key);
    }
    const float correction[2] = {raise<0>(softmax[0], s, factor), raise<1>(softmax[1], s, factor)};
#pragma unroll
    for (int d = 0; d < D / 8; ++d) {
      for (int i = 0; i < 4; ++i) y[d][i] *= correction[i / 2];
    }
    cp_async_wait<0>();
    __syncthreads();  // values are there, and nobody reads these keys any more
    if (key + kKeys < keys) begin_load<D, kKeys>(k.from(key + kKeys), k_tile);
    cp_async_commit();
    add_product<D>(s, v_tile, y);
  }
  cp_async_wait<0>();
  float inverse[2];
  for (int i = 0; i < 2; ++i) {
    const float sum = row_sum(softmax[i].sum);
    inverse[i] = inverse_of(sum);
    if (at.lane % 4 != 0 || at.row(i) >= rows) continue;
    p.lse[head * p.lse_stride + sample.q_begin + first + at.row(i)] =
        log_sum(softmax[i].top, sum, factor);
  }
  put_rows<D>(y, inverse, rows_of(y_THD, sample.q_begin + first, rows, head, D), false);
}

}  // namespace

void CudaBackend::do_attention(const ops::Attention& p, const Tensor& scratch) {
  const std::int64_t heads = p.q_THD.dim(1);
  const std::int64_t size = p.q_THD.dim(2);
  if (p.q_THD.elements() == 0 || library_attention_->forward(p, scratch)) return;
  if (fragments::serve(p.q_THD.dtype, size, limits_.architecture)) {
    constexpr int kRows = fragments::kBlockRows;
    return fragments::dispatch(p.q_THD.dtype, size, [&]<class T, int D>() {
      launch(attention_fragment_kernel<T, D>, attention_grid(p, p.max_q, kRows, heads),
             fragments::kThreads, fragments::tile_bytes<D>(2 * kRows), stream_, arguments_of<T>(p),
             heads_of<T>(p.y_THD));
    });
  }
  dispatch_storage(p.q_THD.dtype, [&]<class T>() {
    scalar::dispatch_columns(size, [&]<int kColumns>(std::int64_t pieces) {
      launch(attention_scalar_kernel<T, kColumns>,
             attention_grid(p, p.max_q, scalar::kTile, heads * pieces), scalar::kThreads, 0,
             stream_, arguments_of<T>(p), heads_of<T>(p.y_THD));
    });
  });
}

}  // namespace medvqa::cuda
