// The pointwise functions and their derivatives, as in kernels/cpu/activation.h.
#pragma once

#include <numbers>

#include "machine.h"
#include "medvqa/ops/params.h"

namespace medvqa::cuda {

__device__ inline float sigmoid(float x) {
  return 1.0f / (1.0f + expf(-x));
}

struct QuickGelu {
  static constexpr float kSlope = 1.702f;
  __device__ static float value(float x) { return x * sigmoid(kSlope * x); }
  __device__ static float derivative(float x) {
    const float s = sigmoid(kSlope * x);
    return s + kSlope * x * s * (1.0f - s);
  }
};

struct Silu {
  __device__ static float value(float x) { return x * sigmoid(x); }
  __device__ static float derivative(float x) {
    const float s = sigmoid(x);
    return s + x * s * (1.0f - s);
  }
};

struct GeluErf {
  __device__ static float normal_cdf(float x) {
    return 0.5f * (1.0f + erff(x * (std::numbers::sqrt2_v<float> / 2)));
  }
  __device__ static float value(float x) { return x * normal_cdf(x); }
  __device__ static float derivative(float x) {
    constexpr float kInvSqrt2Pi =
        std::numbers::inv_sqrtpi_v<float> * std::numbers::sqrt2_v<float> / 2;
    return normal_cdf(x) + x * kInvSqrt2Pi * expf(-0.5f * x * x);
  }
};

struct GeluTanh {
  static constexpr float kCubic = 0.044715f;
  static constexpr float kScale = std::numbers::inv_sqrtpi_v<float> * std::numbers::sqrt2_v<float>;
  __device__ static float inner(float x) { return kScale * (x + kCubic * x * x * x); }
  __device__ static float value(float x) { return 0.5f * x * (1.0f + tanhf(inner(x))); }
  __device__ static float derivative(float x) {
    const float t = tanhf(inner(x));
    return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * kScale * (1.0f + 3.0f * kCubic * x * x);
  }
};

// Calls f.template operator()<Function>() with the struct above that `kind` names.
template <class F>
void dispatch_activation(ops::Activation kind, F&& f) {
  switch (kind) {
    case ops::Activation::gelu_erf:
      return f.template operator()<GeluErf>();
    case ops::Activation::gelu_tanh:
      return f.template operator()<GeluTanh>();
    case ops::Activation::quick_gelu:
      return f.template operator()<QuickGelu>();
    case ops::Activation::silu:
      return f.template operator()<Silu>();
    case ops::Activation::none:
      break;
  }
  MEDVQA_CHECK(false, "no activation to apply");
}

}  // namespace medvqa::cuda
