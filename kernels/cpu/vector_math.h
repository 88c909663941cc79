// exp and its relatives in a form the compiler turns into vector code, always inlined: a call in a
// loop would keep it scalar. f64 uses the C library.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

namespace medvqa::cpu {

// e^x for f32, within 1.1 ulp of the true value for x in [-87, 88]; 0 from -87.7 down, infinity
// from 88.4 up; NaN stays NaN. x = n ln 2 + r with |r| <= ln 2 / 2 (Cody & Waite 1980), e^r by its
// Taylor polynomial of degree 7, whose remainder 2^-29 vanishes under f32's rounding.
[[gnu::always_inline]] inline float exponential(float x) {
  constexpr float kLog2E = 1.44269504088896341f;
  constexpr float kLn2High = 0.693359375f;
  constexpr float kLn2Low = -2.12194440e-4f;
  // 1.5 * 2^23: what is added to it is rounded to an integer and stands in the lowest bits.
  constexpr float kRoundToInteger = 12582912.0f;
  constexpr int kExponentBias = 127;
  // In this order NaN passes both.
  const float bounded = std::min(std::max(x, -104.0f), 89.0f);
  const float shifted = std::fma(bounded, kLog2E, kRoundToInteger);
  const float n = shifted - kRoundToInteger;
  const float r = std::fma(-n, kLn2Low, std::fma(-n, kLn2High, bounded));
  float p = 1.0f / 5040.0f;
  p = std::fma(p, r, 1.0f / 720.0f);
  p = std::fma(p, r, 1.0f / 120.0f);
  p = std::fma(p, r, 1.0f / 24.0f);
  p = std::fma(p, r, 1.0f / 6.0f);
  p = std::fma(p, r, 0.5f);
  p = std::fma(p * r, r, r) + 1.0f;
  // 2^n by its bits; exponents below the normal ones become 0, the one above them infinity.
  const std::int32_t exponent = std::bit_cast<std::int32_t>(shifted) -
                                (std::bit_cast<std::int32_t>(kRoundToInteger) - kExponentBias);
  return p * std::bit_cast<float>(std::max(exponent, 0) << 23);
}
inline double exponential(double x) {
  return std::exp(x);
}

template <class A>
[[gnu::always_inline]] inline A sigmoid(A x) {
  return A(1) / (A(1) + exponential(-x));
}

// erf(x) for f32, within 8e-8 of the true value: 1 - e^-f(|x|) with the sign of x, where f is the
// polynomial of degree 9 without constant term that fits -log(erfc) on [0, 3.95] best, weighted
// with erfc (least squares reweighted to the smallest maximum, Lawson 1961: 2.3e-9 unrounded).
[[gnu::always_inline]] inline float error_function(float x) {
  const float a = std::min(std::abs(x), 4.0f);
  float f = -8.043820344028063e-06f;
  f = std::fma(f, a, 0.00010602662223391235f);
  f = std::fma(f, a, -0.0005879505770280957f);
  f = std::fma(f, a, 0.0015767599688842893f);
  f = std::fma(f, a, -5.878130832570605e-05f);
  f = std::fma(f, a, -0.019217142835259438f);
  f = std::fma(f, a, 0.10279920697212219f);
  f = std::fma(f, a, 0.6366161108016968f);
  f = std::fma(f, a, 1.1283793449401855f);
  return std::copysign(1.0f - exponential(-f * a), x);
}
inline double error_function(double x) {
  return std::erf(x);
}

}  // namespace medvqa::cpu
