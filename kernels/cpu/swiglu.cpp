#include "kernels/cpu/activation.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/elements.h"
#include "kernels/cpu/vector_clones.h"

namespace medvqa::cpu {

namespace {

template <class T>
MEDVQA_VECTOR_CLONES void gated(const T* gate, const T* up, std::int64_t n, T* y) {
  for (std::int64_t f = 0; f < n; ++f) {
    y[f] = static_cast<T>(Silu<Accumulator<T>>::value(load(gate[f])) * load(up[f]));
  }
}

template <class T>
MEDVQA_VECTOR_CLONES void gate_gradient(const T* gate, const T* up, const T* dy, std::int64_t n,
                                        bool accumulate, T* dgate) {
  put_row(dgate, n, accumulate, [=](std::int64_t f) MEDVQA_INLINE {
    return load(dy[f]) * load(up[f]) * Silu<Accumulator<T>>::derivative(load(gate[f]));
  });
}

template <class T>
MEDVQA_VECTOR_CLONES void up_gradient(const T* gate, const T* dy, std::int64_t n, bool accumulate,
                                      T* dup) {
  put_row(dup, n, accumulate, [=](std::int64_t f) MEDVQA_INLINE {
    return load(dy[f]) * Silu<Accumulator<T>>::value(load(gate[f]));
  });
}

}  // namespace

void CpuBackend::do_swiglu(const ops::SwiGlu& p) {
  dispatch_float(p.gate_TF.dtype, [&]<class T>() {
    const std::int64_t columns = p.gate_TF.dim(1);
    parallel_for(p.gate_TF.dim(0), columns * 8, [&](std::int64_t t) {
      gated(row<T>(p.gate_TF, t), row<T>(p.up_TF, t), columns, row<T>(p.y_TF, t));
    });
  });
}

void CpuBackend::do_swiglu_backward(const ops::SwiGluBackward& p) {
  dispatch_float(p.gate_TF.dtype, [&]<class T>() {
    const std::int64_t columns = p.gate_TF.dim(1);
    parallel_for(p.gate_TF.dim(0), columns * 16, [&](std::int64_t t) {
      const T* gate = row<T>(p.gate_TF, t);
      const T* up = row<T>(p.up_TF, t);
      const T* dy = row<T>(p.dy_TF, t);
      if (p.dgate_TF) {
        gate_gradient(gate, up, dy, columns, p.dgate_TF.accumulate, row<T>(p.dgate_TF.tensor, t));
      }
      if (p.dup_TF) {
        up_gradient(gate, dy, columns, p.dup_TF.accumulate, row<T>(p.dup_TF.tensor, t));
      }
    });
  });
}

}  // namespace medvqa::cpu
