#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/device/activation.h"
#include "kernels/cuda/device/elements.h"

namespace medvqa::cuda {

namespace {

template <class T, int N>
__global__ void __launch_bounds__(kElementThreads)
    swiglu_kernel(ElementGrid grid, RowPointer<T> gate_TF, RowPointer<T> up_TF,
                  RowPointer<T> y_TF) {
  ElementPlace place;
  if (!find_place(grid, place)) return;
  const std::int64_t column = static_cast<std::int64_t>(place.vector) * N;
  const Vector<T, N> gate = load_vector<T, N>(gate_TF[place.row] + column);
  Vector<T, N> v = load_vector<T, N>(up_TF[place.row] + column);
#pragma unroll
  for (int i = 0; i < N; ++i) v[i] = from_float<T>(Silu::value(to_float(gate[i])) * to_float(v[i]));
  store_vector(y_TF[place.row] + column, v);
}

// Both gradients from one reading of the operands, and one exponential an element.
template <class T, int N>
__global__ void __launch_bounds__(kElementThreads)
    swiglu_backward_kernel(ElementGrid grid, RowPointer<T> gate_TF, RowPointer<T> up_TF,
                           RowPointer<T> dy_TF, GradientRows<T> dgate_TF, GradientRows<T> dup_TF) {
  ElementPlace place;
  if (!find_place(grid, place)) return;
  const std::int64_t column = static_cast<std::int64_t>(place.vector) * N;
  const Vector<T, N> gate = load_vector<T, N>(gate_TF[place.row] + column);
  const Vector<T, N> up = load_vector<T, N>(up_TF[place.row] + column);
  const Vector<T, N> dy = load_vector<T, N>(dy_TF[place.row] + column);
  float dgate[N], dup[N];
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const float g = to_float(gate[i]), d = to_float(dy[i]);
    const float s = sigmoid(g);
    dgate[i] = d * to_float(up[i]) * (s + g * s * (1.0f - s));
    dup[i] = d * (g * s);
  }
  if (dgate_TF.rows.data != nullptr) {
    put_vector(dgate_TF.rows[place.row] + column, dgate, dgate_TF.accumulate);
  }
  if (dup_TF.rows.data != nullptr) {
    put_vector(dup_TF.rows[place.row] + column, dup, dup_TF.accumulate);
  }
}

}  // namespace

void CudaBackend::do_swiglu(const ops::SwiGlu& p) {
  if (p.gate_TF.elements() == 0) return;
  const std::initializer_list<const Tensor*> tensors{&p.gate_TF, &p.up_TF, &p.y_TF};
  const RowExtent extent = row_extent(tensors);
  dispatch_storage(p.gate_TF.dtype, [&]<class T>() {
    const bool vectors = rows_take_vectors<T>(extent.rows, extent.columns, tensors);
    dispatch_vectors<T>(vectors, [&]<int N>() {
      launch_elements(swiglu_kernel<T, N>, extent, N, stream_, row_pointer<T>(p.gate_TF),
                      row_pointer<T>(p.up_TF), row_pointer<T>(p.y_TF));
    });
  });
}

void CudaBackend::do_swiglu_backward(const ops::SwiGluBackward& p) {
  if (p.gate_TF.elements() == 0) return;
  const std::initializer_list<const Tensor*> tensors{&p.gate_TF, &p.up_TF, &p.dy_TF,
                                                     &p.dgate_TF.tensor, &p.dup_TF.tensor};
  const RowExtent extent = row_extent(tensors);
  dispatch_storage(p.gate_TF.dtype, [&]<class T>() {
    const bool vectors = rows_take_vectors<T>(extent.rows, extent.columns, tensors);
    dispatch_vectors<T>(vectors, [&]<int N>() {
      launch_elements(swiglu_backward_kernel<T, N>, extent, N, stream_, row_pointer<T>(p.gate_TF),
                      row_pointer<T>(p.up_TF), row_pointer<T>(p.dy_TF),
                      gradient_rows<T>(p.dgate_TF), gradient_rows<T>(p.dup_TF));
    });
  });
}

}  // namespace medvqa::cuda
