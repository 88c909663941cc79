// The gradients of attention in f32 tiles, for every type and head size.
#pragma once

#include "kernels/cuda/device/attention_gradient.h"
#include "kernels/cuda/device/attention_scalar.h"

namespace medvqa::cuda::scalar {

// Blocks a multiprocessor's registers must hold. Left to itself, ptxas aims at four blocks of the
// narrow dq kernel on sm_80, and spills; so it does at three.
constexpr int kDqBlocksAtOnce = 2;

template <class T, int kColumns>
__global__ void __launch_bounds__(kThreads, kDqBlocksAtOnce)
    attention_dq_scalar_kernel(BackwardArguments<T> b, HeadGradient<T> dq_THD) {
  __shared__ Square left, right;
  __shared__ Wide<kColumns> columns;
  const AttentionArguments<T>& p = b.forward;
  const Sample sample = sample_of(p, blockIdx.z);
  const int first = static_cast<int>(blockIdx.x) * kTile;
  if (first >= sample.q_count) return;
  const Share share(p.size, kColumns);
  const int rows = lesser(kTile, sample.q_count - first);
  const int begin = sample.q_begin + first;
  const int group = share.head / p.shared;
  const auto q = rows_of(p.q, begin, rows, share.head, p.size);
  const auto dy = rows_of(b.dy, begin, rows, share.head, p.size);
  const auto k = rows_of(p.k, sample.k_begin, sample.k_count, group, p.size);
  const auto v = rows_of(p.v, sample.k_begin, sample.k_count, group, p.size);
  const Place at;
  const float factor = p.scale * kLog2E;
  RowStatistics row[2];
  for (int i = 0; i < 2; ++i)
    row[i] = statistics_of(b, share.head, begin + lesser(at.row(i), rows - 1));
  Result<kColumns> dq;
  const int keys = sample.visible(first + rows - 1);
  for (int key = 0; key < keys; key += kTile) {
    float s[2][2], ds[2][2];
    multiply_rows(q, k.from(key), p.size, left, right, s);
    multiply_rows(dy, v.from(key), p.size, left, right, ds);
    __syncthreads();  // left takes the gradients of the scores
    for (int i = 0; i < 2; ++i) {
      const int visible = sample.visible(first + at.row(i)) - key;
      for (int j = 0; j < 2; ++j) {
        const float probability = exp2f(fmaf(s[i][j], factor, -row[i].lse));
        ds[i][j] = at.column(j) < visible ? probability * (ds[i][j] - row[i].delta) : 0.0f;
      }
    }
    store_square(ds, left);
    load_columns(k.from(key), share.begin, share.width, columns);
    __syncthreads();
    dq.add_product(left, columns, share.width, keys - key);
  }
  for (int i = 0; i < 2; ++i) dq.scale(i, p.scale);
  dq.put_rows(rows_of(dq_THD.to, begin, rows, share.head, p.size), share.begin, share.width,
              dq_THD.accumulate);
}

// Scores are transposed here: a row is a key, a column a query.
template <class T, int kColumns>
__global__ void __launch_bounds__(kThreads)
    attention_dkv_scalar_kernel(BackwardArguments<T> b, HeadGradient<T> dk_SGD,
                                HeadGradient<T> dv_SGD) {
  __shared__ Square left, right;
  __shared__ Wide<kColumns> columns;
  const AttentionArguments<T>& p = b.forward;
  const Sample sample = sample_of(p, blockIdx.z);
  const int first = static_cast<int>(blockIdx.x) * kTile;
  if (first >= sample.k_count) return;
  const Share share(p.size, kColumns);
  const int rows = lesser(kTile, sample.k_count - first);
  const auto k = rows_of(p.k, sample.k_begin + first, rows, share.head, p.size);
  const auto v = rows_of(p.v, sample.k_begin + first, rows, share.head, p.size);
  const Place at;
  const float factor = p.scale * kLog2E;
  Result<kColumns> dk, dv;
  for (int head = share.head * p.shared; head < (share.head + 1) * p.shared; ++head) {
    const auto q = rows_of(p.q, sample.q_begin, sample.q_count, head, p.size);
    const auto dy = rows_of(b.dy, sample.q_begin, sample.q_count, head, p.size);
    // No query before the tile's first key sees it.
    for (int query = p.causal ? first : 0; query < sample.q_count; query += kTile) {
      float s[2][2], ds[2][2];
      multiply_rows(k, q.from(query), p.size, left, right, s);
      multiply_rows(v, dy.from(query), p.size, left, right, ds);
      __syncthreads();  // left takes the probabilities, right the gradients of the scores
      for (int j = 0; j < 2; ++j) {
        const int column = query + at.column(j);
        const bool there = column < sample.q_count;
        const RowStatistics of =
            there ? statistics_of(b, head, sample.q_begin + column) : RowStatistics{0, 0};
        for (int i = 0; i < 2; ++i) {
          const bool seen = there && first + at.row(i) < sample.visible(column);
          s[i][j] = seen ? exp2f(fmaf(s[i][j], factor, -of.lse)) : 0.0f;
          ds[i][j] = s[i][j] * (ds[i][j] - of.delta);
        }
      }
      store_square(s, left);
      store_square(ds, right);
      load_columns(dy.from(query), share.begin, share.width, columns);
      __syncthreads();
      dv.add_product(left, columns, share.width, sample.q_count - query);
      __syncthreads();
      load_columns(q.from(query), share.begin, share.width, columns);
      __syncthreads();
      dk.add_product(right, columns, share.width, sample.q_count - query);
    }
  }
  for (int i = 0; i < 2; ++i) dk.scale(i, p.scale);
  const int begin = sample.k_begin + first;
  if (dk_SGD.to.data != nullptr) {
    dk.put_rows(rows_of(dk_SGD.to, begin, rows, share.head, p.size), share.begin, share.width,
                dk_SGD.accumulate);
  }
  if (dv_SGD.to.data != nullptr) {
    dv.put_rows(rows_of(dv_SGD.to, begin, rows, share.head, p.size), share.begin, share.width,
                dv_SGD.accumulate);
  }
}

template <class T>
void launch_gradients(const ops::AttentionBackward& p, const BackwardArguments<T>& b,
                      Stream stream) {
  const ops::Attention& f = p.forward;
  dispatch_columns(f.q_THD.dim(2), [&]<int kColumns>(std::int64_t pieces) {
    if (p.dq_THD && f.q_THD.elements() > 0) {
      launch(attention_dq_scalar_kernel<T, kColumns>,
             attention_grid(f, f.max_q, kTile, f.q_THD.dim(1) * pieces), kThreads, 0, stream, b,
             gradient_of<T>(p.dq_THD));
    }
    if ((p.dk_SGD || p.dv_SGD) && f.k_SGD.elements() > 0) {
      launch(attention_dkv_scalar_kernel<T, kColumns>,
             attention_grid(f, f.max_k, kTile, f.k_SGD.dim(1) * pieces), kThreads, 0, stream, b,
             gradient_of<T>(p.dk_SGD), gradient_of<T>(p.dv_SGD));
    }
  });
}

}  // namespace medvqa::cuda::scalar
