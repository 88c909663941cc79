#include <cmath>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/elements.h"

namespace medvqa::cpu {

void CpuBackend::do_rms_norm(const ops::RmsNorm& p) {
  dispatch_norm(p.x_TC.dtype, p.y_TC.dtype, [&]<class X, class T>() {
    using A = Accumulator<T>;
    const std::int64_t channels = p.x_TC.dim(1);
    const T* w = p.weight_C.as<T>();
    parallel_for(p.x_TC.dim(0), channels * 4, [&](std::int64_t t) {
      const X* x = row<X>(p.x_TC, t);
      T* y = row<T>(p.y_TC, t);
      A squares = 0;
#pragma omp simd reduction(+ : squares)
      for (std::int64_t c = 0; c < channels; ++c) squares += load(x[c]) * load(x[c]);
      const A inv = A(1) / std::sqrt(squares / static_cast<A>(channels) + static_cast<A>(p.eps));
      p.inv_rms_T.as<A>()[t] = inv;
      for (std::int64_t c = 0; c < channels; ++c) {
        y[c] = static_cast<T>(load(static_cast<X>(load(x[c]) * inv)) * load(w[c]));
      }
    });
  });
}

void CpuBackend::do_rms_norm_backward(const ops::RmsNormBackward& p) {
  dispatch_norm(p.x_TC.dtype, p.dy_TC.dtype, [&]<class X, class T>() {
    using A = Accumulator<T>;
    const std::int64_t channels = p.x_TC.dim(1);
    const T* w = p.weight_C.as<T>();
    parallel_for(p.x_TC.dim(0), channels * 8, [&](std::int64_t t) {
      const X* x = row<X>(p.x_TC, t);
      const T* dy = row<T>(p.dy_TC, t);
      X* dx = row<X>(p.dx_TC.tensor, t);
      const A inv = p.inv_rms_T.as<A>()[t];
      A dot = 0;
#pragma omp simd reduction(+ : dot)
      for (std::int64_t c = 0; c < channels; ++c) dot += load(dy[c]) * load(w[c]) * load(x[c]);
      const A along = dot * inv * inv / static_cast<A>(channels);
      put_row(dx, channels, p.dx_TC.accumulate, [=](std::int64_t c) {
        return inv * (load(dy[c]) * load(w[c]) - along * load(x[c]));
      });
    });
  });
}

}  // namespace medvqa::cpu
