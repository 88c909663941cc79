#include "kernels/cpu/activation.h"

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/elements.h"
#include "kernels/cpu/vector_clones.h"

namespace medvqa::cpu {

namespace {

template <class Function, class T>
MEDVQA_VECTOR_CLONES void activate(const T* x, std::int64_t n, T* y) {
  put_row(y, n, false, [=](std::int64_t c) MEDVQA_INLINE { return Function::value(load(x[c])); });
}

template <class Function, class T>
MEDVQA_VECTOR_CLONES void activate_backward(const T* x, const T* dy, std::int64_t n,
                                            bool accumulate, T* dx) {
  put_row(dx, n, accumulate, [=](std::int64_t c) MEDVQA_INLINE {
    return load(dy[c]) * Function::derivative(load(x[c]));
  });
}

}  // namespace

void CpuBackend::do_activation(ops::Activation kind, const Tensor& x, const Tensor& y) {
  if (x.elements() == 0) return;
  dispatch_float(x.dtype, [&]<class T>() {
    dispatch_activation<Accumulator<T>>(kind, [&]<class Function>() {
      const std::int64_t columns = x.row_elements();
      parallel_for(x.dim(0), columns * 8, [&](std::int64_t i) {
        activate<Function>(row<T>(x, i), columns, row<T>(y, i));
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
        activate_backward<Function>(row<T>(x, i), row<T>(dy, i), columns, dx.accumulate,
                                    row<T>(dx.tensor, i));
      });
    });
  });
}

}  // namespace medvqa::cpu
