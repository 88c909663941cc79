// Residuals that f16 cannot hold.
#include <gtest/gtest.h>

#include "tests/models/tiny_qwen2_vl.h"
#include "tests/support/op_case.h"

namespace medvqa::models::testing_models {
namespace {

constexpr double kLargestF16 = 65504;

// An embedding and feed-forward branches of tens of thousands; what blocks compute from their
// normalised sum is of ordinary size.
double large_residuals(const std::string& name) {
  const bool language = name.find("language_model") != std::string::npos;
  if (name.ends_with("embed_tokens.weight")) return 6e4;
  return language && name.ends_with("down_proj.weight") ? 6e4 : 1;
}

TinyModel large_model(DType compute) {
  return TinyModel({.compute = compute, .stored = DType::f16, .factor = large_residuals});
}

Values joined(const std::vector<Values>& parts) {
  Values all;
  for (const Values& p : parts) all.insert(all.end(), p.begin(), p.end());
  return all;
}

double relative_difference(const Values& a, const Values& b) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    norm += b[i] * b[i];
  }
  return std::sqrt(difference / norm);
}

TEST(ResidualStream, IsF32InF16Only) {
  EXPECT_EQ(nn::residual_type(DType::f16), DType::f32);
  for (const DType type : {DType::f64, DType::f32, DType::bf16}) {
    EXPECT_EQ(nn::residual_type(type), type);
  }
}

TEST(ResidualStream, PassesTheLargestF16) {
  TinyModel tiny = large_model(DType::f16);
  double largest = 0;
  std::vector<std::string> segments;
  tiny.run(packed(first_sample(), second_sample()),
           {.observe = [&](const std::string& name, const Tensor& value) {
             segments.push_back(name);
             EXPECT_EQ(value.dtype, DType::f32) << name;
             for (const double v : tiny.device().get(value)) {
               largest = std::max(largest, std::fabs(v));
             }
           }});
  EXPECT_GT(largest, kLargestF16);
  EXPECT_FALSE(std::isfinite(medvqa::testing::rounded(largest, DType::f16)));
  EXPECT_EQ(segments,
            (std::vector<std::string>{
                "model.visual.patch_embed", "model.visual.blocks.0", "model.visual.merger",
                "model.language_model.embed_tokens, with image features",
                "model.language_model.layers.0", "model.language_model.layers.1"}));
  for (const Values& g : tiny.gradients()) EXPECT_EQ(g, Values(g.size(), 0.0)) << "no backward";
}

// Each of 4 blocks rounds about 12 times on the way of its values; errors add up as a random walk
// of 4 x 12 steps of u = 2^-11, and twice that with the backward. Three deviations.
TEST(ResidualStream, TrainsInF16AsInF32) {
  const Batch batch = packed(first_sample(), second_sample());
  const double bound = 3 * std::sqrt(4 * 12.0) * roundoff(DType::f16);
  constexpr double kScale = 256;  // of the loss: neither over- nor underflow
  TinyModel exact = large_model(DType::f32), half = large_model(DType::f16);
  const Values expected = exact.run(batch, {}, kScale), found = half.run(batch, {}, kScale);
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_NEAR(found[i], expected[i], bound * std::max(1.0, expected[i]));
  }
  const Values gradient = joined(half.gradients());
  for (const double g : gradient) ASSERT_TRUE(std::isfinite(g));
  EXPECT_LE(relative_difference(gradient, joined(exact.gradients())), 2 * bound);
  EXPECT_NE(gradient, joined(exact.gradients()));
}

}  // namespace
}  // namespace medvqa::models::testing_models
