// The vector forms of exp and erf against the C library's in double precision.
#include "kernels/cpu/vector_math.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace medvqa::cpu {
namespace {

// Distance of `actual` from `expected` in units of the last place of the f32 nearest to it.
double ulps(float actual, double expected) {
  const auto near = std::abs(static_cast<float>(expected));
  const float above = std::nextafter(near, std::numeric_limits<float>::infinity());
  return std::abs(static_cast<double>(actual) - expected) / static_cast<double>(above - near);
}

TEST(VectorMath, ExponentialIsWithinItsBound) {
  double worst = 0;
  for (double x = -87.0; x <= 88.0; x += 1.0 / 1024 + 1e-5) {
    const auto rounded = static_cast<float>(x);
    worst = std::max(worst, ulps(exponential(rounded), std::exp(static_cast<double>(rounded))));
  }
  EXPECT_LE(worst, 1.1);
  EXPECT_GT(worst, 0.5);  // it was measured
}

TEST(VectorMath, ExponentialAtItsEnds) {
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(exponential(0.0f), 1.0f);
  for (const float x : {-87.8f, -104.0f, -1e30f, -infinity}) EXPECT_EQ(exponential(x), 0.0f) << x;
  for (const float x : {88.5f, 89.0f, 1e30f, infinity}) EXPECT_EQ(exponential(x), infinity) << x;
  EXPECT_TRUE(std::isnan(exponential(std::numeric_limits<float>::quiet_NaN())));
}

TEST(VectorMath, ErrorFunctionIsWithinItsBound) {
  double worst = 0;
  for (double x = -6.0; x <= 6.0; x += 1.0 / 8192 + 1e-6) {
    const auto rounded = static_cast<float>(x);
    const double expected = std::erf(static_cast<double>(rounded));
    worst = std::max(worst, std::abs(static_cast<double>(error_function(rounded)) - expected));
  }
  EXPECT_LE(worst, 8e-8);
  EXPECT_GT(worst, 0);
}

TEST(VectorMath, ErrorFunctionAtItsEnds) {
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(error_function(0.0f), 0.0f);
  for (const float x : {4.5f, 1e30f, infinity}) {
    EXPECT_EQ(error_function(x), 1.0f) << x;
    EXPECT_EQ(error_function(-x), -1.0f) << x;
  }
  EXPECT_TRUE(std::isnan(error_function(std::numeric_limits<float>::quiet_NaN())));
}

}  // namespace
}  // namespace medvqa::cpu
