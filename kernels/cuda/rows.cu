// Moving rows: copy, convert, fill, accumulate, gather, scatter, scale. One thread an element.
#include <cstdint>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/device/storage.h"

namespace medvqa::cuda {

namespace {

constexpr int kThreads = 256;

// Element i of a [rows, columns] tensor whose rows stand `stride` elements apart.
struct Rows {
  std::int64_t columns = 0;
  std::int64_t stride = 0;
  __device__ std::int64_t at(std::int64_t row, std::int64_t column) const {
    return row * stride + column;
  }
};

Rows rows_of(const Tensor& t) {
  return {.columns = t.row_elements(), .stride = t.row_stride};
}

__device__ std::int64_t element_index() {
  return static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
}

// Runs kernel(n, arguments...) with one thread for each of n elements.
template <class... Parameters, class... Arguments>
void launch_elements(void (*kernel)(std::int64_t, Parameters...), std::int64_t n, Stream stream,
                     Arguments&&... arguments) {
  if (n == 0) return;
  launch(kernel, blocks_for(n, kThreads), kThreads, 0, stream, n,
         std::forward<Arguments>(arguments)...);
}

// y = factor * scale[row] * x, or y += it, rounded once; scale null: all ones.
template <class T>
__global__ void __launch_bounds__(kThreads)
    scale_rows_kernel(std::int64_t n, const T* x, Rows x_rows, float factor, const float* scale,
                      T* y, Rows y_rows, bool accumulate) {
  const std::int64_t i = element_index();
  if (i >= n) return;
  const std::int64_t row = i / x_rows.columns, column = i % x_rows.columns;
  const float by = scale == nullptr ? factor : factor * scale[row];
  T* to = y + y_rows.at(row, column);
  const float value = by * to_float(x[x_rows.at(row, column)]);
  *to = from_float<T>(accumulate ? to_float(*to) + value : value);
}

}  // namespace

void CudaBackend::do_scale_rows(const Tensor& x_TC, double factor, const Tensor& scale_T,
                                const ops::GradOut& y_TC) {
  dispatch_storage(x_TC.dtype, [&]<class T>() {
    const float* scale = scale_T ? elements_of<float>(scale_T) : nullptr;
    launch_elements(scale_rows_kernel<T>, x_TC.elements(), stream_, elements_of<T>(x_TC),
                    rows_of(x_TC), static_cast<float>(factor), scale, elements_of<T>(y_TC.tensor),
                    rows_of(y_TC.tensor), y_TC.accumulate);
  });
}

}  // namespace medvqa::cuda
