#include "medvqa/models/frequencies.h"

#include <gtest/gtest.h>

#include <cmath>

namespace medvqa::models {
namespace {

// Values of transformers 5.17 for Llama 3.2 Vision: every kind of wavelength, and the borders.
TEST(Llama3Frequencies, EqualTheReferences) {
  const std::vector<float> plain = inverse_frequencies(500000.0, 128);
  const std::vector<float> f = llama3_frequencies(plain, {});
  ASSERT_EQ(f.size(), 64u);
  const std::vector<std::pair<std::size_t, float>> golden{{0, 1.0f},
                                                          {1, 0.8146172165870667f},
                                                          {28, 0.0032114461064338684f},
                                                          {29, 0.0021665706299245358f},
                                                          {30, 0.0013718936825171113f},
                                                          {31, 0.0008567514596506953f},
                                                          {32, 0.0005248460220173001f},
                                                          {33, 0.0003126936499029398f},
                                                          {34, 0.0001785077915335074f},
                                                          {35, 9.556212171446532e-05f},
                                                          {36, 7.784655463183299e-05f},
                                                          {63, 3.068925877869333e-07f}};
  for (const auto& [i, value] : golden) EXPECT_EQ(f[i], value) << i;
  for (std::size_t i = 0; i < f.size(); ++i) {
    if (i > 28 && i < 35) continue;
    EXPECT_EQ(f[i], i <= 28 ? plain[i] : plain[i] / 8) << i;
  }
}

TEST(Llama3Frequencies, FactorOneChangesLittle) {
  const std::vector<float> plain = inverse_frequencies(10000.0, 64);
  const std::vector<float> f = llama3_frequencies(plain, {.factor = 1});
  for (std::size_t i = 0; i < f.size(); ++i) EXPECT_NEAR(f[i], plain[i], 2e-7f * plain[i]) << i;
}

}  // namespace
}  // namespace medvqa::models
