// The formulas of ops/params.h in plain f64 with the C library, sharing nothing with the kernels.
#pragma once

#include <cmath>
#include <cstdint>
#include <numbers>
#include <vector>

#include "medvqa/ops/params.h"

namespace medvqa::testing::naive {

inline double activation(ops::Activation kind, double x) {
  switch (kind) {
    case ops::Activation::none:
      return x;
    case ops::Activation::gelu_erf:
      return x * 0.5 * std::erfc(-x / std::numbers::sqrt2);
    case ops::Activation::gelu_tanh:
      return 0.5 * x *
             (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * std::pow(x, 3))));
    case ops::Activation::quick_gelu:
      return x / (1 + std::exp(-1.702 * x));
    case ops::Activation::silu:
      return x / (1 + std::exp(-x));
  }
  return 0;
}

inline double slope(ops::Activation kind, double x) {
  const auto swish = [x](double a) {
    const double s = 1 / (1 + std::exp(-a * x));
    return s * (1 + a * x * (1 - s));
  };
  switch (kind) {
    case ops::Activation::none:
      return 1;
    case ops::Activation::gelu_erf:
      return 0.5 * std::erfc(-x / std::numbers::sqrt2) +
             x * std::exp(-x * x / 2) / std::sqrt(2 * std::numbers::pi);
    case ops::Activation::gelu_tanh: {
      const double a = std::sqrt(2 / std::numbers::pi);
      const double u = a * (x + 0.044715 * std::pow(x, 3));
      const double du = a * (1 + 3 * 0.044715 * x * x);
      return 0.5 * (1 + std::tanh(u)) + 0.5 * x * du / (std::cosh(u) * std::cosh(u));
    }
    case ops::Activation::quick_gelu:
      return swish(1.702);
    case ops::Activation::silu:
      return swish(1);
  }
  return 0;
}

struct AttentionShape {
  std::int64_t heads = 1, groups = 1, size = 1;
  std::vector<std::int64_t> q_lengths, k_lengths;  // by sample
  bool causal = false;
  double scale = 1;
};

// Everything a test may ask about attention: values, gradients for dy, and for each the sum of
// |terms| with the error of the scores folded in (_size), and of |terms| made of probabilities or
// score gradients as they are (_terms). [T, H, D] and [S, G, D], lse [H, T].
struct AttentionResult {
  std::vector<double> y, lse, dq, dk, dv;
  std::vector<double> y_size, lse_size, dq_size, dk_size, dv_size;
  std::vector<double> y_terms, dq_terms, dk_terms, dv_terms;
};
AttentionResult attention(const AttentionShape& s, const std::vector<double>& q,
                          const std::vector<double>& k, const std::vector<double>& v,
                          const std::vector<double>& dy);

}  // namespace medvqa::testing::naive
