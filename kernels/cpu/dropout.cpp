#include <cmath>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/elements.h"
#include "medvqa/core/philox.h"

namespace medvqa::cpu {

void CpuBackend::do_dropout(const ops::Dropout& p) {
  dispatch_float(p.x_TC.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    const std::int64_t n = p.x_TC.elements();
    const auto threshold = static_cast<std::uint64_t>(std::ldexp(p.p, 32));
    const A scale = static_cast<A>(1 / (1 - p.p));
    const T* x = p.x_TC.as<T>();
    T* y = p.y_TC.tensor.as<T>();
    parallel_for((n + 3) / 4, 80, [&](std::int64_t four) {
      const auto words = philox4x32(p.seed, p.stream, static_cast<std::uint64_t>(four));
      for (std::int64_t i = four * 4; i < std::min(n, four * 4 + 4); ++i) {
        const bool keep = words[static_cast<std::size_t>(i - four * 4)] >= threshold;
        put(y[i], keep ? load(x[i]) * scale : A(0), p.y_TC.accumulate);
      }
    });
  });
}

}  // namespace medvqa::cpu
