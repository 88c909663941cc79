#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "medvqa/core/mt19937.h"
#include "medvqa/core/philox.h"

namespace medvqa {
namespace {

using Words = std::array<std::uint32_t, 4>;

// Known answers of Random123, kat_vectors, philox4x32 with 10 rounds.
TEST(Philox, KnownAnswers) {
  EXPECT_EQ(philox4x32(0, 0, 0), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  constexpr std::uint64_t kOnes = ~std::uint64_t{0};
  EXPECT_EQ(philox4x32(kOnes, kOnes, kOnes),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32(0x299f31d0a4093822u, 0x0370734413198a2eu, 0x85a308d3243f6a88u),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

// torch.randperm(n, generator=torch.Generator().manual_seed(seed)).
TEST(TorchGenerator, PermutationsOfTorch) {
  using Order = std::vector<std::int64_t>;
  EXPECT_EQ(TorchGenerator(3407).permutation(10), (Order{9, 1, 5, 7, 3, 2, 8, 6, 4, 0}));
  EXPECT_EQ(TorchGenerator(42).permutation(10), (Order{2, 6, 1, 8, 4, 5, 0, 9, 3, 7}));
  Order first = TorchGenerator(3407).permutation(1978);
  ASSERT_EQ(first.size(), 1978u);
  Order sorted = first;
  std::sort(sorted.begin(), sorted.end());
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    ASSERT_EQ(sorted[i], static_cast<std::int64_t>(i));
  }
  first.resize(16);
  EXPECT_EQ(first, (Order{861, 1918, 1949, 727, 1297, 1956, 680, 401, 532, 531, 1227, 746, 1426,
                          541, 254, 145}));
  EXPECT_TRUE(TorchGenerator(1).permutation(0).empty());
  EXPECT_EQ(TorchGenerator(1).permutation(1), Order{0});
}

// PEFT's lora_A of a Linear(64, 32), r = 16, after torch.manual_seed(3407): the constructors' draws
// of A and B come first.
TEST(TorchGenerator, FirstLoraValuesOfPeft) {
  TorchGenerator generator(3407);
  generator.skip(16 * 64 + 32 * 16);
  const auto bound = static_cast<float>(1 / std::sqrt(64.0));
  std::vector<float> values(16 * 64);
  generator.uniform(values, -bound, bound);
  EXPECT_EQ(values[0], -0x1.3f791p-4f);
  EXPECT_EQ(values[1], 0x1.496444p-4f);
  EXPECT_EQ(values[2], -0x1.282a98p-4f);
  EXPECT_EQ(values[3], 0x1.d8d62p-7f);
  EXPECT_EQ(values[500], 0x1.ec1b2p-7f);
  EXPECT_EQ(values[1023], -0x1.f16008p-4f);
}

TEST(TorchGenerator, SkippingIsDrawing) {
  TorchGenerator drawn(7), skipped(7);
  std::vector<float> values(1000);
  drawn.uniform(values, 0, 1);
  skipped.skip(1000);
  EXPECT_EQ(drawn.next(), skipped.next());
  for (const float v : values) {
    ASSERT_GE(v, 0.0f);
    ASSERT_LT(v, 1.0f);
  }
}

}  // namespace
}  // namespace medvqa
