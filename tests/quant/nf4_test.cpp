#include "medvqa/quant/nf4.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "medvqa/quant/dynamic_map.h"
#include "tests/quant/golden.h"

namespace medvqa::quant {
namespace {

// bitsandbytes' AVX-512 code takes the blocks of a matrix whose rows are no multiple of 64 as
// floor(columns / 64) a row, which scales most of these 96 x 160 values wrongly. The goldens carry
// that, so the arithmetic is compared under the same indexing; real layers are multiples of 64.
std::vector<float> dequantize_as_the_goldens(const std::vector<std::uint8_t>& packed,
                                             const std::vector<float>& absmax, DType dtype) {
  constexpr std::size_t kColumns = 160;
  std::vector<float> values;
  for (std::size_t i = 0; i < packed.size() * 2; i += 32) {
    const std::size_t block = i / kColumns * (kColumns / 64) + i % kColumns / 64;
    std::vector<float> part(32);
    dequantize_nf4(std::span(packed).subspan(i / 2, 16), std::span(absmax).subspan(block, 1),
                   kNf4Code, 32, dtype, part);
    values.insert(values.end(), part.begin(), part.end());
  }
  return values;
}

struct Precision {
  const char* name;
  DType dtype;
};

class Nf4Golden : public testing::TestWithParam<Precision> {};

TEST_P(Nf4Golden, PlainIsByteForByteBitsandbytes) {
  const std::string prefix = std::string("nf4_") + GetParam().name;
  const Nf4Data data = quantize_nf4(golden().floats(prefix + ".weight"));
  EXPECT_EQ(data.packed, golden().raw<std::uint8_t>(prefix + ".packed"));
  EXPECT_EQ(data.absmax, golden().floats(prefix + ".absmax"));
  EXPECT_EQ(dequantize_as_the_goldens(data.packed, data.absmax, GetParam().dtype),
            golden().floats(prefix + ".dequantised"));
}

TEST_P(Nf4Golden, NestedIsByteForByteBitsandbytes) {
  const std::string prefix = std::string("nf4_nested_") + GetParam().name;
  const Nf4Data data = quantize_nf4(golden().floats(prefix + ".weight"));
  EXPECT_EQ(data.packed, golden().raw<std::uint8_t>(prefix + ".packed"));
  const NestedAbsmax nested = quantize_absmax(data.absmax);
  EXPECT_EQ(nested.offset, golden().floats(prefix + ".offset").at(0));
  EXPECT_EQ(nested.codes, golden().raw<std::uint8_t>(prefix + ".absmax"));
  EXPECT_EQ(nested.absmax, golden().floats(prefix + ".nested_absmax"));
  const std::vector<float> absmax =
      dequantize_absmax(nested.codes, nested.absmax, signed_dynamic_map(), nested.offset);
  EXPECT_EQ(dequantize_as_the_goldens(data.packed, absmax, GetParam().dtype),
            golden().floats(prefix + ".dequantised"));
}

INSTANTIATE_TEST_SUITE_P(Dtypes, Nf4Golden,
                         testing::Values(Precision{"bf16", DType::bf16},
                                         Precision{"f16", DType::f16},
                                         Precision{"f32", DType::f32}),
                         [](const auto& one) { return std::string(one.param.name); });

TEST(Nf4, ThresholdsAreF32MidpointsAndStrict) {
  for (int i = 0; i < 15; ++i) {
    EXPECT_EQ(kNf4Thresholds[i], (kNf4Code[i] + kNf4Code[i + 1]) * 0.5f) << i;
    EXPECT_EQ(nf4_code(kNf4Thresholds[i]), i);
    EXPECT_EQ(nf4_code(std::nextafter(kNf4Thresholds[i], 2.0f)), i + 1);
  }
  for (int i = 0; i < 16; ++i) EXPECT_EQ(nf4_code(kNf4Code[i]), i);
  EXPECT_EQ(nf4_code(std::numeric_limits<float>::quiet_NaN()), 0);
}

// bitsandbytes 0.50.2 on a CPU: code 7 is the value 0, in both nibbles.
TEST(Nf4, AllZeroBlockHasTheCodeOfZero) {
  const Nf4Data data = quantize_nf4(std::vector<float>(64, 0.0f));
  EXPECT_EQ(data.absmax, std::vector<float>{0.0f});
  EXPECT_EQ(data.packed, std::vector<std::uint8_t>(32, 0x77));
}

TEST(Nf4, ShortLastBlockHasItsOwnMaximumAndPadsWithTheCodeOfZero) {
  std::vector<float> values(67, 0.5f);
  values[64] = -2.0f;
  values[65] = 2.0f;
  values[66] = 1.0f;
  const Nf4Data data = quantize_nf4(values);
  EXPECT_EQ(data.absmax, (std::vector<float>{0.5f, 2.0f}));
  ASSERT_EQ(data.packed.size(), 34u);
  EXPECT_EQ(data.packed[0], 0xff);
  EXPECT_EQ(data.packed[32], 0x0f);
  EXPECT_EQ(data.packed[33], 0xc7);
  std::vector<float> back(values.size());
  dequantize_nf4(data.packed, data.absmax, kNf4Code, 64, DType::f32, back);
  EXPECT_EQ(back[64], -2.0f);
}

TEST(Nf4, MeanOfOneHundredThousandStaysCloseToTheTruth) {
  std::vector<float> values;
  double sum = 0;
  for (int i = 0; i < 100003; ++i) {
    values.push_back(0.01f + 0.001f * static_cast<float>(i % 97));
    sum += static_cast<double>(values.back());
  }
  const double mean = sum / static_cast<double>(values.size());
  EXPECT_NEAR(static_cast<double>(torch_mean(values)), mean, mean * 0x1p-23);
}

}  // namespace
}  // namespace medvqa::quant
