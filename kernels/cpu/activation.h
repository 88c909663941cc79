// The pointwise functions and their derivatives.
#pragma once

#include <cmath>
#include <numbers>

#include "kernels/cpu/vector_math.h"
#include "medvqa/ops/params.h"

namespace medvqa::cpu {

template <class A>
struct QuickGelu {
  static constexpr A kSlope = A(1.702);
  [[gnu::always_inline]] static A value(A x) { return x * sigmoid(kSlope * x); }
  [[gnu::always_inline]] static A derivative(A x) {
    const A s = sigmoid(kSlope * x);
    return s + kSlope * x * s * (A(1) - s);
  }
};

template <class A>
struct Silu {
  [[gnu::always_inline]] static A value(A x) { return x * sigmoid(x); }
  [[gnu::always_inline]] static A derivative(A x) {
    const A s = sigmoid(x);
    return s + x * s * (A(1) - s);
  }
};

template <class A>
struct GeluErf {
  [[gnu::always_inline]] static A normal_cdf(A x) {
    return A(0.5) * (A(1) + error_function(x * (std::numbers::sqrt2_v<A> / A(2))));
  }
  [[gnu::always_inline]] static A value(A x) { return x * normal_cdf(x); }
  [[gnu::always_inline]] static A derivative(A x) {
    constexpr A kInvSqrt2Pi = std::numbers::inv_sqrtpi_v<A> * std::numbers::sqrt2_v<A> / A(2);
    return normal_cdf(x) + x * kInvSqrt2Pi * exponential(A(-0.5) * x * x);
  }
};

template <class A>
struct GeluTanh {
  static constexpr A kCubic = A(0.044715);
  static A inner(A x) {
    constexpr A kScale = std::numbers::inv_sqrtpi_v<A> * std::numbers::sqrt2_v<A>;
    return kScale * (x + kCubic * x * x * x);
  }
  [[gnu::always_inline]] static A value(A x) { return A(0.5) * x * (A(1) + std::tanh(inner(x))); }
  [[gnu::always_inline]] static A derivative(A x) {
    constexpr A kScale = std::numbers::inv_sqrtpi_v<A> * std::numbers::sqrt2_v<A>;
    const A t = std::tanh(inner(x));
    return A(0.5) * (A(1) + t) +
           A(0.5) * x * (A(1) - t * t) * kScale * (A(1) + A(3) * kCubic * x * x);
  }
};

// Calls f.template operator()<Function>() with the struct above that `kind` names.
template <class A, class F>
void dispatch_activation(ops::Activation kind, F&& f) {
  switch (kind) {
    case ops::Activation::gelu_erf:
      return f.template operator()<GeluErf<A>>();
    case ops::Activation::gelu_tanh:
      return f.template operator()<GeluTanh<A>>();
    case ops::Activation::quick_gelu:
      return f.template operator()<QuickGelu<A>>();
    case ops::Activation::silu:
      return f.template operator()<Silu<A>>();
    case ops::Activation::none:
      break;
  }
  fail_check(__FILE__, __LINE__, "kind", "no activation to apply");
}

}  // namespace medvqa::cpu
