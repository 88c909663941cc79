// Every one of the 65,536 patterns of both 16-bit types, and the f32 on and around each midpoint
// of two neighbours, against arithmetic in f64.
#include "medvqa/core/dtype.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>

namespace medvqa {
namespace {

struct Format {
  int exponent_bits, fraction_bits;
  double value(std::uint32_t pattern) const {
    const std::uint32_t fraction = pattern & ((1u << fraction_bits) - 1);
    const auto exponent =
        static_cast<int>((pattern >> fraction_bits) & ((1u << exponent_bits) - 1));
    const int bias = (1 << (exponent_bits - 1)) - 1;
    const double sign = (pattern & 0x8000u) != 0 ? -1 : 1;
    if (exponent == (1 << exponent_bits) - 1) return fraction != 0 ? std::nan("") : sign * INFINITY;
    if (exponent == 0) return sign * std::ldexp(fraction, 1 - bias - fraction_bits);
    return sign * std::ldexp((1u << fraction_bits) + fraction, exponent - bias - fraction_bits);
  }
  std::uint32_t infinity() const { return ((1u << exponent_bits) - 1) << fraction_bits; }
};
constexpr Format kBFloat16{8, 7};
constexpr Format kFloat16{5, 10};

template <class T>
T from_bits(std::uint32_t bits) {
  T t;
  t.bits = static_cast<std::uint16_t>(bits);
  return t;
}

template <class T>
std::uint32_t rounded_bits(double value) {
  return T(static_cast<float>(value)).bits;
}

template <class T>
void check_all_patterns(const Format& format) {
  for (std::uint32_t bits = 0; bits < 0x10000u; ++bits) {
    const double expected = format.value(bits);
    const T narrow = from_bits<T>(bits);
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(static_cast<float>(narrow))) << bits;
      ASSERT_TRUE(std::isnan(static_cast<double>(T(static_cast<float>(narrow))))) << bits;
      continue;
    }
    ASSERT_EQ(static_cast<double>(narrow), expected) << bits;
    ASSERT_EQ(std::signbit(static_cast<float>(narrow)), std::signbit(expected)) << bits;
    ASSERT_EQ(T(static_cast<float>(narrow)).bits, bits);
  }
}

// Between a pattern and the next the midpoint goes to the even one, an f32 less or more to its
// side. After the largest finite value stands what would be the next: from halfway on, infinity.
template <class T>
void check_midpoints(const Format& format) {
  for (std::uint32_t bits = 0; bits < format.infinity(); ++bits) {
    const double low = format.value(bits);
    const bool last = bits + 1 == format.infinity();
    const double high = last ? 2 * low - format.value(bits - 1) : format.value(bits + 1);
    const auto middle = static_cast<float>((low + high) / 2);
    ASSERT_EQ(static_cast<double>(middle), (low + high) / 2);
    const std::uint32_t even = bits % 2 == 0 ? bits : bits + 1;
    for (const std::uint32_t sign : {0u, 0x8000u}) {
      const double s = sign != 0 ? -1 : 1;
      ASSERT_EQ(rounded_bits<T>(s * static_cast<double>(middle)), even | sign) << bits;
      const float below = std::nextafter(middle, 0.0f);
      const float above = std::nextafter(middle, INFINITY);
      ASSERT_EQ(rounded_bits<T>(s * static_cast<double>(below)), bits | sign);
      ASSERT_EQ(rounded_bits<T>(s * static_cast<double>(above)), (bits + 1) | sign);
    }
  }
}

TEST(BFloat16, EveryPatternMeansWhatTheFormatSaysAndSurvives) {
  check_all_patterns<BFloat16>(kBFloat16);
}
TEST(Float16, EveryPatternMeansWhatTheFormatSaysAndSurvives) {
  check_all_patterns<Float16>(kFloat16);
}
TEST(BFloat16, RoundsToNearestEvenAtEveryMidpoint) {
  check_midpoints<BFloat16>(kBFloat16);
}
TEST(Float16, RoundsToNearestEvenAtEveryMidpoint) {
  check_midpoints<Float16>(kFloat16);
}

TEST(Float16, BeyondTheRange) {
  EXPECT_EQ(Float16(65519.996f).bits, 0x7bff);
  EXPECT_EQ(Float16(65520.0f).bits, 0x7c00);
  EXPECT_EQ(Float16(-1e30f).bits, 0xfc00);
  EXPECT_EQ(Float16(INFINITY).bits, 0x7c00);
  EXPECT_EQ(Float16(1e-30f).bits, 0);
  EXPECT_EQ(Float16(-1e-30f).bits, 0x8000);
}

TEST(BFloat16, BeyondTheRange) {
  EXPECT_EQ(BFloat16(3.4e38f).bits, 0x7f80);
  EXPECT_EQ(BFloat16(-INFINITY).bits, 0xff80);
  // A NaN whose payload lies in the lower half only must not become infinity.
  EXPECT_TRUE(std::isnan(static_cast<float>(BFloat16(std::bit_cast<float>(0x7f800001u)))));
}

TEST(DType, SizesNamesAndRoundoff) {
  for (const DType t : {DType::f64, DType::f32, DType::bf16, DType::f16}) {
    EXPECT_TRUE(is_floating(t));
    dispatch_float(t, [&]<class T>() {
      EXPECT_EQ(sizeof(T), size_of(t));
      EXPECT_EQ(dtype_of<T>(), t);
      // 1 + roundoff is a tie that goes back to 1; a little more reaches the next number.
      const auto narrow = [](double x) {
        return static_cast<double>(static_cast<T>(static_cast<Accumulator<T>>(x)));
      };
      if (t != DType::f64) {
        EXPECT_EQ(narrow(1 + roundoff(t)), 1.0) << name_of(t);
        EXPECT_EQ(narrow(1 + 1.5 * roundoff(t)), 1 + 2 * roundoff(t)) << name_of(t);
      }
    });
  }
  EXPECT_FALSE(is_floating(DType::i32));
  EXPECT_THROW(dispatch_float(DType::u8, []<class T>() {}), InternalError);
}

}  // namespace
}  // namespace medvqa
