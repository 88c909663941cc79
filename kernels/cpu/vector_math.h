// exp and its relatives in a form the compiler turns into vector code, always inlined: a call in a
// loop would keep it scalar. f64 uses the C library.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

namespace medvqa::cpu {

// e^x for f32, within 1.1 ulp of the true value for x in [-87, 88]; 0 below, infinity above; NaN
// stays NaN. x = n ln 2 + r with |r| <= ln 2 / 2 (Cody & Waite 1980), e^r by its Taylor polynomial
// of degree 7, whose remainder 2^-29 vanishes under f32's rounding.
[[gnu::always_inline]] inline float exponential(float x) {
  constexpr float kLog2E = 1.44269504088896341f;
  constexpr float kLn2High = 0.693359375f;
  constexpr float kLn2Low = -2.12194440e-4f;
  constexpr float kRoundToInteger = 12582912.0f;  // 1.5 * 2^23
  const float bounded = std::min(std::max(x, -104.0f), 89.0f);
  const float n = std::fma(bounded, kLog2E, kRoundToInteger) - kRoundToInteger;
  const float r = std::fma(-n, kLn2Low, std::fma(-n, kLn2High, bounded));
  float p = 1.0f / 5040.0f;
  p = std::fma(p, r, 1.0f / 720.0f);
  p = std::fma(p, r, 1.0f / 120.0f);
  p = std::fma(p, r, 1.0f / 24.0f);
  p = std::fma(p, r, 1.0f / 6.0f);
  p = std::fma(p, r, 0.5f);
  p = std::fma(p * r, r, r) + 1.0f;
  // 2^n in two factors, so that subnormal results and the largest finite ones come out right.
  const auto whole = static_cast<std::int32_t>(n);
  const std::int32_t half = whole >> 1;
  const auto power = [](std::int32_t k) {
    return std::bit_cast<float>(static_cast<std::uint32_t>(k + 127) << 23);
  };
  const float y = p * power(half) * power(whole - half);
  return x != x ? x : y;
}
inline double exponential(double x) {
  return std::exp(x);
}

template <class A>
[[gnu::always_inline]] inline A sigmoid(A x) {
  return A(1) / (A(1) + exponential(-x));
}

}  // namespace medvqa::cpu
