#include "kernels/cpu/activation.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/elements.h"

namespace medvqa::cpu {

void CpuBackend::do_swiglu(const ops::SwiGlu& p) {
  dispatch_float(p.gate_TF.dtype, [&]<class T>() {
    const std::int64_t columns = p.gate_TF.dim(1);
    parallel_for(p.gate_TF.dim(0), columns * 8, [&](std::int64_t t) {
      const T* gate = row<T>(p.gate_TF, t);
      const T* up = row<T>(p.up_TF, t);
      T* y = row<T>(p.y_TF, t);
      for (std::int64_t f = 0; f < columns; ++f) {
        y[f] = static_cast<T>(Silu<Accumulator<T>>::value(load(gate[f])) * load(up[f]));
      }
    });
  });
}

void CpuBackend::do_swiglu_backward(const ops::SwiGluBackward& p) {
  dispatch_float(p.gate_TF.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    const std::int64_t columns = p.gate_TF.dim(1);
    parallel_for(p.gate_TF.dim(0), columns * 16, [&](std::int64_t t) {
      const T* gate = row<T>(p.gate_TF, t);
      const T* up = row<T>(p.up_TF, t);
      const T* dy = row<T>(p.dy_TF, t);
      if (p.dgate_TF) {
        T* dgate = row<T>(p.dgate_TF.tensor, t);
        put_row(dgate, columns, p.dgate_TF.accumulate, [=](std::int64_t f) {
          return load(dy[f]) * load(up[f]) * Silu<A>::derivative(load(gate[f]));
        });
      }
      if (p.dup_TF) {
        T* dup = row<T>(p.dup_TF.tensor, t);
        put_row(dup, columns, p.dup_TF.accumulate,
                [=](std::int64_t f) { return load(dy[f]) * Silu<A>::value(load(gate[f])); });
      }
    });
  });
}

}  // namespace medvqa::cpu
