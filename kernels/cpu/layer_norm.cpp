#include <cmath>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/elements.h"

namespace medvqa::cpu {

void CpuBackend::do_layer_norm(const ops::LayerNorm& p) {
  dispatch_norm(p.x_TC.dtype, p.y_TC.dtype, [&]<class X, class T>() {
    using A = Accumulator<T>;
    const std::int64_t channels = p.x_TC.dim(1);
    const T* w = p.weight_C.as<T>();
    const T* b = p.bias_C.as<T>();
    parallel_for(p.x_TC.dim(0), channels * 6, [&](std::int64_t t) {
      const X* x = row<X>(p.x_TC, t);
      T* y = row<T>(p.y_TC, t);
      A sum = 0;
#pragma omp simd reduction(+ : sum)
      for (std::int64_t c = 0; c < channels; ++c) sum += load(x[c]);
      const A mean = sum / static_cast<A>(channels);
      A squares = 0;
#pragma omp simd reduction(+ : squares)
      for (std::int64_t c = 0; c < channels; ++c) {
        squares += (load(x[c]) - mean) * (load(x[c]) - mean);
      }
      const A inv = A(1) / std::sqrt(squares / static_cast<A>(channels) + static_cast<A>(p.eps));
      p.mean_T.as<A>()[t] = mean;
      p.inv_std_T.as<A>()[t] = inv;
      for (std::int64_t c = 0; c < channels; ++c) {
        y[c] = static_cast<T>((load(x[c]) - mean) * inv * load(w[c]) + load(b[c]));
      }
    });
  });
}

void CpuBackend::do_layer_norm_backward(const ops::LayerNormBackward& p) {
  dispatch_norm(p.x_TC.dtype, p.dy_TC.dtype, [&]<class X, class T>() {
    using A = Accumulator<T>;
    const std::int64_t channels = p.x_TC.dim(1);
    const T* w = p.weight_C.as<T>();
    parallel_for(p.x_TC.dim(0), channels * 10, [&](std::int64_t t) {
      const X* x = row<X>(p.x_TC, t);
      const T* dy = row<T>(p.dy_TC, t);
      X* dx = row<X>(p.dx_TC.tensor, t);
      const A mean = p.mean_T.as<A>()[t];
      const A inv = p.inv_std_T.as<A>()[t];
      A sum = 0;
      A dot = 0;
#pragma omp simd reduction(+ : sum, dot)
      for (std::int64_t c = 0; c < channels; ++c) {
        const A g = load(dy[c]) * load(w[c]);
        sum += g;
        dot += g * ((load(x[c]) - mean) * inv);
      }
      const A mean_g = sum / static_cast<A>(channels);
      const A mean_gn = dot / static_cast<A>(channels);
      put_row(dx, channels, p.dx_TC.accumulate, [=](std::int64_t c) {
        const A n = (load(x[c]) - mean) * inv;
        return inv * (load(dy[c]) * load(w[c]) - mean_g - n * mean_gn);
      });
    });
  });
}

}  // namespace medvqa::cpu
