// The whole model, vision tower and decoder.
#include <gtest/gtest.h>

#include <cmath>

#include "medvqa/ops/dry_backend.h"
#include "tests/models/tiny_qwen2_vl.h"

namespace medvqa::models::testing_models {
namespace {

using autograd::Recompute;

// Every LoRA scalar of the model.
TEST(Qwen2Vl, EveryAdapterGradientAgreesWithDifferences) {
  TinyModel tiny({});
  expect_gradients_agree(tiny, packed(first_sample(), second_sample()), 1e-6);
}

TEST(Qwen2Vl, PoliciesAgreeBitForBit) {
  const Batch batch = packed(first_sample(), second_sample());
  for (const DType type : {DType::f64, DType::f32, DType::bf16}) {
    const auto outcome = [&](Recompute r, bool keep) {
      TinyModel tiny({.compute = type, .nf4 = true, .dropout = 0.2});
      std::vector<Values> all{tiny.run(
          batch, {.recompute = r, .keep_weights = keep, .random_key = 11, .dropout = true})};
      for (Values& g : tiny.gradients()) all.push_back(std::move(g));
      return all;
    };
    const auto expected = outcome(Recompute::none, false);
    for (const bool keep : {false, true}) {
      for (const Recompute r : {Recompute::all, Recompute::attention_saved, Recompute::none}) {
        EXPECT_EQ(outcome(r, keep), expected) << name_of(type) << static_cast<int>(r);
      }
    }
  }
}

TEST(Qwen2Vl, ForwardOnlyGivesTheSameLoss) {
  const Batch batch = packed(first_sample(), second_sample());
  TinyModel tiny({.compute = DType::f32});
  const Values nll = tiny.run(batch, {.training = false});
  for (const Values& g : tiny.gradients()) EXPECT_EQ(g, Values(g.size(), 0.0));
  EXPECT_EQ(tiny.run(batch, {}), nll);
}

TEST(Qwen2Vl, TheDryRunKnowsTheMemoryToTheByte) {
  const Batch batch = packed(first_sample(), second_sample());
  for (const DType type : {DType::f64, DType::f32, DType::bf16, DType::f16}) {
    for (const Recompute r : {Recompute::all, Recompute::attention_saved, Recompute::none}) {
      const autograd::SegmentTape::Options options{.recompute = r, .dropout = true};
      TinyModel real({.compute = type, .nf4 = true, .dropout = 0.2});
      real.run(batch, options);

      nn::DescribedWeights::Options described;
      described.nf4 = true;
      described.nested = false;
      const nn::DescribedWeights source(described);
      ops::DryBackend dry(real.device().backend().traits());
      Arena tensors("tensors"), step("step"), block("block"), scratch("scratch");
      dry.use_scratch(scratch);
      nn::Builder builder(dry, source, tensors, tensors, type,
                          medvqa::testing::adapt_all(1, 1.25, 0.2), nn::QuantizeOnLoad::no);
      const auto model = build_model(tiny_config(), builder);
      Batch sizes = batch;
      sizes.input.patches.clear();  // a plan has no pixels
      run_pass(dry, {step, block, scratch}, *model, sizes, tensors, options);
      EXPECT_EQ(step.peak(), real.device().step().peak()) << name_of(type);
      EXPECT_EQ(block.peak(), real.device().block().peak()) << name_of(type);
      EXPECT_EQ(scratch.peak(), real.device().scratch().peak()) << name_of(type);
      EXPECT_EQ(tensors.peak(), real.device().tensors().peak()) << name_of(type);
    }
  }
}

TEST(Qwen2Vl, PackedIsSeparate) {
  for (const DType type : {DType::f64, DType::f32}) {
    TinyModel together({.compute = type}), apart({.compute = type});
    const Values nll = together.run(packed(first_sample(), second_sample()), {});
    Values separate = apart.run(first_sample(), {});
    for (const double n : apart.run(second_sample(), {})) separate.push_back(n);
    const double allowed = 4096 * roundoff(type);  // the operations of a few layers
    ASSERT_EQ(nll.size(), separate.size());
    for (std::size_t i = 0; i < nll.size(); ++i) EXPECT_NEAR(nll[i], separate[i], allowed);
    const auto a = together.gradients(), b = apart.gradients();
    for (std::size_t i = 0; i < a.size(); ++i) {
      for (std::size_t e = 0; e < a[i].size(); ++e) ASSERT_NEAR(a[i][e], b[i][e], allowed);
    }
  }
}

// What one sample says must not reach another: changing one's pixels and words leaves the other's
// loss alone.
TEST(Qwen2Vl, SamplesDoNotSeeEachOther) {
  TinyModel tiny({});
  const Values before = tiny.run(packed(first_sample(), second_sample()), {.training = false});
  Batch other = second_sample();
  for (float& v : other.input.patches) v = -v;
  other.input.ids[0] = 11;
  const Values after = tiny.run(packed(first_sample(), other), {.training = false});
  EXPECT_EQ(before[0], after[0]);
  EXPECT_EQ(before[1], after[1]);
  EXPECT_NE(before[2], after[2]);
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
