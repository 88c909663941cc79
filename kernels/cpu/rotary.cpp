#include <cmath>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/elements.h"

namespace medvqa::cpu {

void CpuBackend::do_rotary_table(const ops::RotaryTable& p) {
  const std::int64_t tokens = p.positions_AT.dim(1);
  const std::int64_t pairs = p.inv_freq_F.dim(0);
  const float* inv_freq = p.inv_freq_F.as<float>();
  const std::int32_t* axis = p.axis_F.as<std::int32_t>();
  parallel_for(tokens, pairs * 32, [&](std::int64_t t) {
    float* cosines = row<float>(p.cos_TF, t);
    float* sines = row<float>(p.sin_TF, t);
    for (std::int64_t f = 0; f < pairs; ++f) {
      const std::int32_t position = row<std::int32_t>(p.positions_AT, axis[f])[t];
      const float angle = static_cast<float>(position) * inv_freq[f];
      cosines[f] = std::cos(angle);
      sines[f] = std::sin(angle);
    }
  });
}

void CpuBackend::do_rotary(const ops::Rotary& p) {
  dispatch_float(p.x_TC.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    const std::int64_t half = p.head_size / 2;
    const float sign = p.inverse ? -1.0f : 1.0f;
    parallel_for(p.x_TC.dim(0), p.heads * p.head_size * 3, [&](std::int64_t t) {
      const float* cosines = row<float>(p.cos_TF, t);
      const float* sines = row<float>(p.sin_TF, t);
      for (std::int64_t h = 0; h < p.heads; ++h) {
        T* lower = row<T>(p.x_TC, t) + h * p.head_size;
        T* upper = lower + half;
        for (std::int64_t f = 0; f < half; ++f) {
          const A u = load(lower[f]);
          const A v = load(upper[f]);
          const A c = static_cast<A>(cosines[f]);
          const A s = static_cast<A>(sign * sines[f]);
          lower[f] = static_cast<T>(u * c - v * s);
          upper[f] = static_cast<T>(v * c + u * s);
        }
      }
    });
  });
}

}  // namespace medvqa::cpu
