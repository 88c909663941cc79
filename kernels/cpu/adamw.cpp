#include <cmath>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/elements.h"
#include "medvqa/quant/adamw8bit.h"

namespace medvqa::cpu {

namespace {

void update_8bit(const ops::AdamWTensor& t, const quant::AdamWFactors& factors,
                 const quant::AdamWTables& tables) {
  const std::int64_t n = t.value.elements();
  const std::int64_t block = quant::kAdamWBlockSize;
  parallel_for((n + block - 1) / block, block * 20, [&](std::int64_t b) {
    const std::int64_t begin = b * block;
    quant::adamw_block_8bit(factors, tables, static_cast<std::size_t>(std::min(block, n - begin)),
                            t.grad.as<float>() + begin, t.value.as<float>() + begin,
                            t.m.as<std::uint8_t>() + begin, t.v.as<std::uint8_t>() + begin,
                            t.m_absmax.as<float>()[b], t.v_absmax.as<float>()[b]);
  });
}

}  // namespace

void CpuBackend::do_adamw(const ops::AdamW& p) {
  const quant::AdamWFactors factors = quant::adamw_factors({.lr = p.learning_rate,
                                                            .beta1 = p.beta1,
                                                            .beta2 = p.beta2,
                                                            .eps = p.eps,
                                                            .weight_decay = p.weight_decay,
                                                            .step = p.step,
                                                            .gradient_scale = p.grad_scale});
  const quant::AdamWTables tables = quant::adamw_tables();
  for (const ops::AdamWTensor& t : p.tensors) {
    if (t.eight_bit()) {
      update_8bit(t, factors, tables);
    } else {
      quant::adamw_elements_32bit(factors, static_cast<std::size_t>(t.value.elements()),
                                  t.grad.as<float>(), t.value.as<float>(), t.m.as<float>(),
                                  t.v.as<float>());
    }
  }
}

void CpuBackend::do_global_norm(std::span<const Tensor> tensors, const Tensor& norm_1) {
  double total = 0;
  for (const Tensor& t : tensors) {
    const float* x = t.as<float>();
    double squares = 0;
#pragma omp simd reduction(+ : squares)
    for (std::int64_t i = 0; i < t.elements(); ++i) {
      squares += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    }
    total += squares;
  }
  *norm_1.as<float>() = static_cast<float>(std::sqrt(total));
}

}  // namespace medvqa::cpu
