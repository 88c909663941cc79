#include "kernels/cpu/activation.h"

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/elements.h"

namespace medvqa::cpu {

void CpuBackend::do_activation(ops::Activation kind, const Tensor& x, const Tensor& y) {
  if (x.elements() == 0) return;
  dispatch_float(x.dtype, [&]<class T>() {
    dispatch_activation<Accumulator<T>>(kind, [&]<class Function>() {
      const std::int64_t columns = x.row_elements();
      parallel_for(x.dim(0), columns * 8, [&](std::int64_t i) {
        const T* xr = row<T>(x, i);
        T* yr = row<T>(y, i);
        for (std::int64_t c = 0; c < columns; ++c) {
          yr[c] = static_cast<T>(Function::value(load(xr[c])));
        }
      });
    });
  });
}

void CpuBackend::do_activation_backward(ops::Activation kind, const Tensor& x, const Tensor& dy,
                                        const ops::GradOut& dx) {
  if (x.elements() == 0) return;
  dispatch_float(x.dtype, [&]<class T>() {
    dispatch_activation<Accumulator<T>>(kind, [&]<class Function>() {
      const std::int64_t columns = x.row_elements();
      parallel_for(x.dim(0), columns * 8, [&](std::int64_t i) {
        const T* xr = row<T>(x, i);
        const T* dyr = row<T>(dy, i);
        T* dxr = row<T>(dx.tensor, i);
        put_row(dxr, columns, dx.accumulate,
                [=](std::int64_t c) { return load(dyr[c]) * Function::derivative(load(xr[c])); });
      });
    });
  });
}

}  // namespace medvqa::cpu
