// The whole model, vision tower and decoder.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/models/model_invariants.h"

namespace medvqa::models::testing_models {
namespace {

// Every LoRA scalar of the model.
TEST(Qwen2Vl, EveryAdapterGradientAgreesWithDifferences) {
  TinyModel tiny({});
  expect_gradients_agree(tiny, packed(first_sample(), second_sample()), 1e-6);
}

TEST(Qwen2Vl, PoliciesAgreeBitForBit) {
  expect_policies_agree({}, packed(first_sample(), second_sample()));
}

TEST(Qwen2Vl, ForwardOnlyGivesTheSameLoss) {
  expect_forward_only_agrees({}, packed(first_sample(), second_sample()));
}

TEST(Qwen2Vl, TheDryRunKnowsTheMemoryToTheByte) {
  expect_the_plan_is_exact({}, packed(first_sample(), second_sample()));
}

TEST(Qwen2Vl, PackedIsSeparate) {
  expect_packed_is_separate({}, {first_sample(), second_sample()});
}

TEST(Qwen2Vl, SamplesDoNotSeeEachOther) {
  expect_samples_apart({}, first_sample(), second_sample());
}

TEST(Qwen2Vl, CausalAndGroundedInTheImage) {
  TinyModel tiny({});
  const Batch batch = first_sample();
  const double first = tiny.run(batch, {.training = false})[0];
  Batch later = batch;
  later.input.ids[8] = 4;  // after the last row that is read
  EXPECT_EQ(tiny.run(later, {.training = false})[0], first);
  Batch pixels = batch;
  pixels.input.patches[5] += 0.5f;
  EXPECT_NE(tiny.run(pixels, {.training = false})[0], first);
}

TEST(Qwen2Vl, TextOnlyAndTiedHead) {
  TinyModel tied({.tied = true});
  EXPECT_EQ(tied.model().head_weight().shape, (Shape{24, 16}));
  Batch text;
  text.input.ids = {1, 2, 3, 4};
  text.input.cu_seqlens = {0, 4};
  text.rows = {2};
  text.labels = {4};
  const Values nll = tied.run(text, {});
  EXPECT_TRUE(std::isfinite(nll[0]));
  const std::vector<Values> g = tied.gradients();
  for (std::size_t i = 0; i < 8; ++i) {  // the vision block's four linears took no part
    EXPECT_EQ(g[i], Values(g[i].size(), 0.0));
  }
  EXPECT_NE(g[8], Values(g[8].size(), 0.0));
  TinyModel untied({});
  EXPECT_EQ(untied.builder().count().frozen, tied.builder().count().frozen + 24 * 16);
}

TEST(Qwen2Vl, PlaceholdersMustMatchTheImages) {
  TinyModel tiny({});
  Batch batch = first_sample();
  batch.input.ids[2] = 1;
  EXPECT_THROW(tiny.run(batch, {}), UserError);
}

}  // namespace
}  // namespace medvqa::models::testing_models
