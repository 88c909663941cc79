// Softmax attention in one pass over tiles of keys: scores live in registers, the largest score and
// the sum of a row so far (the "online softmax", Dao et al. 2022) with them.
#include "kernels/cuda/cuda_backend.h"
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
__global__ void __launch_bounds__(scalar::kThreads)
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
    y.add_product(a, values, share.width);
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

}  // namespace

void CudaBackend::do_attention(const ops::Attention& p, const Tensor& /*scratch*/) {
  const std::int64_t heads = p.q_THD.dim(1);
  if (p.q_THD.elements() == 0) return;
  dispatch_storage(p.q_THD.dtype, [&]<class T>() {
    scalar::dispatch_columns(p.q_THD.dim(2), [&]<int kColumns>(std::int64_t pieces) {
      launch(attention_scalar_kernel<T, kColumns>,
             attention_grid(p, p.max_q, scalar::kTile, heads * pieces), scalar::kThreads, 0,
             stream_, arguments_of<T>(p), heads_of<T>(p.y_THD));
    });
  });
}

}  // namespace medvqa::cuda
