#include <cstdint>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/device/row_pass.h"

namespace medvqa::cuda {

namespace {

template <class X, class T, int N, int Group>
__global__ void __launch_bounds__(kRowThreads, kRowBlocks)
    layer_norm_kernel(const X* x_TC, const T* __restrict__ weight_C, const T* __restrict__ bias_C,
                      std::int64_t rows, int channels, float eps, T* y_TC, float* mean_T,
                      float* inv_std_T) {
  __shared__ float partial[kRowThreads / 32];
  const std::int64_t row = group_row<Group>();
  if (row >= rows) return;
  using Row = XRow<X, N>;
  const RowPass<Row, N, Group> pass({x_TC + row * channels}, channels);
  float sum = 0;
  pass.for_each([&](int, const typename Row::Piece& v) {
#pragma unroll
    for (int i = 0; i < N; ++i) sum += to_float(v.x[i]);
  });
  const float mean = group_sum<Group>(sum, partial) / static_cast<float>(channels);
  float squares = 0;
  pass.for_each([&](int, const typename Row::Piece& v) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float centred = to_float(v.x[i]) - mean;
      squares = fmaf(centred, centred, squares);
    }
  });
  squares = group_sum<Group>(squares, partial);
  const float inv = 1.0f / sqrtf(squares / static_cast<float>(channels) + eps);
  if (threadIdx.x % Group == 0) {
    mean_T[row] = mean;
    inv_std_T[row] = inv;
  }
  T* y = y_TC + row * channels;
  pass.for_each([&](int column, const typename Row::Piece& v) {
    const Vector<T, N> w = load_vector<T, N>(weight_C + column);
    const Vector<T, N> b = load_vector<T, N>(bias_C + column);
    Vector<T, N> out;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float normalised = (to_float(v.x[i]) - mean) * inv;
      out[i] = from_float<T>(normalised * to_float(w[i]) + to_float(b[i]));
    }
    store_vector(y + column, out);
  });
}

template <class X, class T, int N, int Group>
__global__ void __launch_bounds__(kRowThreads, kRowBlocks)
    layer_norm_backward_kernel(const X* x_TC, const T* __restrict__ weight_C, const float* mean_T,
                               const float* inv_std_T, const T* dy_TC, std::int64_t rows,
                               int channels, X* dx_TC, bool accumulate) {
  __shared__ float partial[kRowThreads / 32];
  const std::int64_t row = group_row<Group>();
  if (row >= rows) return;
  using Rows = XAndGradientRows<X, T, N>;
  const RowPass<Rows, N, Group> pass({x_TC + row * channels, dy_TC + row * channels}, channels);
  const float mean = mean_T[row];
  const float inv = inv_std_T[row];
  float sum = 0;
  float dot = 0;
  pass.for_each([&](int column, const typename Rows::Piece& v) {
    const Vector<T, N> w = load_vector<T, N>(weight_C + column);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float g = to_float(v.dy[i]) * to_float(w[i]);
      sum += g;
      dot = fmaf(g, (to_float(v.x[i]) - mean) * inv, dot);
    }
  });
  const float mean_g = group_sum<Group>(sum, partial) / static_cast<float>(channels);
  const float mean_gn = group_sum<Group>(dot, partial) / static_cast<float>(channels);
  X* dx = dx_TC + row * channels;
  pass.for_each([&](int column, const typename Rows::Piece& v) {
    const Vector<T, N> w = load_vector<T, N>(weight_C + column);
    float out[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float normalised = (to_float(v.x[i]) - mean) * inv;
      out[i] = inv * (to_float(v.dy[i]) * to_float(w[i]) - mean_g - normalised * mean_gn);
    }
    put_vector(dx + column, out, accumulate);
  });
}

}  // namespace

void CudaBackend::do_layer_norm(const ops::LayerNorm& p) {
  const std::int64_t rows = p.x_TC.dim(0), channels = p.x_TC.dim(1);
  if (p.x_TC.elements() == 0) return;
  dispatch_norm(p.x_TC.dtype, p.y_TC.dtype, [&]<class X, class T>() {
    const bool vectors =
        rows_take_vectors<X>(rows, channels, {&p.x_TC, &p.weight_C, &p.bias_C, &p.y_TC});
    dispatch_row_groups<X>(rows, channels, vectors, [&]<int N, int Group>(unsigned blocks) {
      launch(layer_norm_kernel<X, T, N, Group>, blocks, kRowThreads, 0, stream_,
             elements_of<X>(p.x_TC), elements_of<T>(p.weight_C), elements_of<T>(p.bias_C), rows,
             channels, p.eps, elements_of<T>(p.y_TC), elements_of<float>(p.mean_T),
             elements_of<float>(p.inv_std_T));
    });
  });
}

void CudaBackend::do_layer_norm_backward(const ops::LayerNormBackward& p) {
  const std::int64_t rows = p.x_TC.dim(0), channels = p.x_TC.dim(1);
  if (p.x_TC.elements() == 0) return;
  const Tensor& dx = p.dx_TC.tensor;
  dispatch_norm(p.x_TC.dtype, p.dy_TC.dtype, [&]<class X, class T>() {
    const bool vectors =
        rows_take_vectors<X>(rows, channels, {&p.x_TC, &p.weight_C, &p.dy_TC, &dx});
    dispatch_row_groups<X>(rows, channels, vectors, [&]<int N, int Group>(unsigned blocks) {
      launch(layer_norm_backward_kernel<X, T, N, Group>, blocks, kRowThreads, 0, stream_,
             elements_of<X>(p.x_TC), elements_of<T>(p.weight_C), elements_of<float>(p.mean_T),
             elements_of<float>(p.inv_std_T), elements_of<T>(p.dy_TC), rows, channels,
             elements_of<X>(dx), p.dx_TC.accumulate);
    });
  });
}

}  // namespace medvqa::cuda
