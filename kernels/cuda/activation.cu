#include "kernels/cuda/device/activation.h"

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/device/elements.h"

namespace medvqa::cuda {

namespace {

template <class Function, class T, int N>
__global__ void __launch_bounds__(kElementThreads)
    activation_kernel(ElementGrid grid, RowPointer<T> x, RowPointer<T> y) {
  ElementPlace place;
  if (!find_place(grid, place)) return;
  const std::int64_t column = static_cast<std::int64_t>(place.vector) * N;
  Vector<T, N> v = load_vector<T, N>(x[place.row] + column);
#pragma unroll
  for (int i = 0; i < N; ++i) v[i] = from_float<T>(Function::value(to_float(v[i])));
  store_vector(y[place.row] + column, v);
}

template <class Function, class T, int N>
__global__ void __launch_bounds__(kElementThreads)
    activation_backward_kernel(ElementGrid grid, RowPointer<T> x, RowPointer<T> dy,
                               GradientRows<T> dx) {
  ElementPlace place;
  if (!find_place(grid, place)) return;
  const std::int64_t column = static_cast<std::int64_t>(place.vector) * N;
  const Vector<T, N> v = load_vector<T, N>(x[place.row] + column);
  const Vector<T, N> d = load_vector<T, N>(dy[place.row] + column);
  float out[N];
#pragma unroll
  for (int i = 0; i < N; ++i) out[i] = to_float(d[i]) * Function::derivative(to_float(v[i]));
  put_vector(dx.rows[place.row] + column, out, dx.accumulate);
}

}  // namespace

void CudaBackend::do_activation(ops::Activation kind, const Tensor& x, const Tensor& y) {
  if (x.elements() == 0) return;
  const RowExtent extent = row_extent({&x, &y});
  dispatch_storage(x.dtype, [&]<class T>() {
    const bool vectors = rows_take_vectors<T>(extent.rows, extent.columns, {&x, &y});
    dispatch_vectors<T>(vectors, [&]<int N>() {
      dispatch_activation(kind, [&]<class Function>() {
        launch_elements(activation_kernel<Function, T, N>, extent, N, stream_, row_pointer<T>(x),
                        row_pointer<T>(y));
      });
    });
  });
}

void CudaBackend::do_activation_backward(ops::Activation kind, const Tensor& x, const Tensor& dy,
                                         const ops::GradOut& dx) {
  if (x.elements() == 0) return;
  const RowExtent extent = row_extent({&x, &dy, &dx.tensor});
  dispatch_storage(x.dtype, [&]<class T>() {
    const bool vectors = rows_take_vectors<T>(extent.rows, extent.columns, {&x, &dy, &dx.tensor});
    dispatch_vectors<T>(vectors, [&]<int N>() {
      dispatch_activation(kind, [&]<class Function>() {
        launch_elements(activation_backward_kernel<Function, T, N>, extent, N, stream_,
                        row_pointer<T>(x), row_pointer<T>(dy), gradient_rows<T>(dx));
      });
    });
  });
}

}  // namespace medvqa::cuda
