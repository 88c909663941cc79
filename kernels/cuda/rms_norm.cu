#include <cstdint>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/device/row_pass.h"

namespace medvqa::cuda {

namespace {

template <class X, class T, int N, int Group>
__global__ void __launch_bounds__(kRowThreads, kRowBlocks)
    rms_norm_kernel(const X* x_TC, const T* __restrict__ weight_C, std::int64_t rows, int channels,
                    float eps, T* y_TC, float* inv_rms_T) {
  __shared__ float partial[kRowThreads / 32];
  const std::int64_t row = group_row<Group>();
  if (row >= rows) return;
  using Row = XRow<X, N>;
  const RowPass<Row, N, Group> pass({x_TC + row * channels}, channels);
  float squares = 0;
  pass.for_each([&](int, const typename Row::Piece& v) {
#pragma unroll
    for (int i = 0; i < N; ++i) squares = fmaf(to_float(v.x[i]), to_float(v.x[i]), squares);
  });
  squares = group_sum<Group>(squares, partial);
  const float inv = 1.0f / sqrtf(squares / static_cast<float>(channels) + eps);
  if (threadIdx.x % Group == 0) inv_rms_T[row] = inv;
  T* y = y_TC + row * channels;
  pass.for_each([&](int column, const typename Row::Piece& v) {
    const Vector<T, N> w = load_vector<T, N>(weight_C + column);
    Vector<T, N> out;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const X normalised = from_float<X>(to_float(v.x[i]) * inv);
      out[i] = from_float<T>(to_float(normalised) * to_float(w[i]));
    }
    store_vector(y + column, out);
  });
}

template <class X, class T, int N, int Group>
__global__ void __launch_bounds__(kRowThreads, kRowBlocks)
    rms_norm_backward_kernel(const X* x_TC, const T* __restrict__ weight_C, const float* inv_rms_T,
                             const T* dy_TC, std::int64_t rows, int channels, X* dx_TC,
                             bool accumulate) {
  __shared__ float partial[kRowThreads / 32];
  const std::int64_t row = group_row<Group>();
  if (row >= rows) return;
  using Rows = XAndGradientRows<X, T, N>;
  const RowPass<Rows, N, Group> pass({x_TC + row * channels, dy_TC + row * channels}, channels);
  const float inv = inv_rms_T[row];
  float dot = 0;
  pass.for_each([&](int column, const typename Rows::Piece& v) {
    const Vector<T, N> w = load_vector<T, N>(weight_C + column);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      dot = fmaf(to_float(v.dy[i]) * to_float(w[i]), to_float(v.x[i]), dot);
    }
  });
  dot = group_sum<Group>(dot, partial);
  const float along = dot * inv * inv / static_cast<float>(channels);
  X* dx = dx_TC + row * channels;
  pass.for_each([&](int column, const typename Rows::Piece& v) {
    const Vector<T, N> w = load_vector<T, N>(weight_C + column);
    float out[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
      out[i] = inv * (to_float(v.dy[i]) * to_float(w[i]) - along * to_float(v.x[i]));
    }
    put_vector(dx + column, out, accumulate);
  });
}

}  // namespace

void CudaBackend::do_rms_norm(const ops::RmsNorm& p) {
  const std::int64_t rows = p.x_TC.dim(0), channels = p.x_TC.dim(1);
  if (p.x_TC.elements() == 0) return;
  dispatch_norm(p.x_TC.dtype, p.y_TC.dtype, [&]<class X, class T>() {
    const bool vectors = rows_take_vectors<X>(rows, channels, {&p.x_TC, &p.weight_C, &p.y_TC});
    dispatch_row_groups<X>(rows, channels, vectors, [&]<int N, int Group>(unsigned blocks) {
      launch(rms_norm_kernel<X, T, N, Group>, blocks, kRowThreads, 0, stream_,
             elements_of<X>(p.x_TC), elements_of<T>(p.weight_C), rows, channels, p.eps,
             elements_of<T>(p.y_TC), elements_of<float>(p.inv_rms_T));
    });
  });
}

void CudaBackend::do_rms_norm_backward(const ops::RmsNormBackward& p) {
  const std::int64_t rows = p.x_TC.dim(0), channels = p.x_TC.dim(1);
  if (p.x_TC.elements() == 0) return;
  const Tensor& dx = p.dx_TC.tensor;
  dispatch_norm(p.x_TC.dtype, p.dy_TC.dtype, [&]<class X, class T>() {
    const bool vectors =
        rows_take_vectors<X>(rows, channels, {&p.x_TC, &p.weight_C, &p.dy_TC, &dx});
    dispatch_row_groups<X>(rows, channels, vectors, [&]<int N, int Group>(unsigned blocks) {
      launch(rms_norm_backward_kernel<X, T, N, Group>, blocks, kRowThreads, 0, stream_,
             elements_of<X>(p.x_TC), elements_of<T>(p.weight_C), elements_of<float>(p.inv_rms_T),
             elements_of<T>(p.dy_TC), rows, channels, elements_of<X>(dx), p.dx_TC.accumulate);
    });
  });
}

}  // namespace medvqa::cuda
