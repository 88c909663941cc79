// The whole model, vision tower and decoder.
#include <gtest/gtest.h>

#include <cmath>

#include "medvqa/ops/dry_backend.h"
#include "tests/models/tiny_mllama.h"

namespace medvqa::models::testing_models {
namespace {

using autograd::Recompute;

TinyModel tiny_mllama(TinyModel::Options o, bool block_output = false) {
  o.config = tiny_mllama_config(block_output);
  return TinyModel(o);
}

Batch everything() {
  return packed(packed(packed(one_picture(), no_picture()), two_pictures()), run_of_pictures());
}

// Every LoRA scalar of the model, with the features of both kinds.
TEST(Mllama, EveryAdapterGradientAgreesWithDifferences) {
  for (const bool block_output : {false, true}) {
    TinyModel tiny = tiny_mllama({}, block_output);
    expect_gradients_agree(tiny, packed(two_pictures(), no_picture()), 1e-9);
  }
}

TEST(Mllama, PoliciesAgreeBitForBit) {
  const Batch batch = everything();
  for (const DType type : {DType::f64, DType::f32, DType::bf16}) {
    const auto outcome = [&](Recompute r, bool keep) {
      TinyModel tiny = tiny_mllama({.compute = type, .nf4 = true, .dropout = 0.2});
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

TEST(Mllama, ForwardOnlyGivesTheSameLoss) {
  TinyModel tiny = tiny_mllama({.compute = DType::f32});
  const Values nll = tiny.run(everything(), {.training = false});
  for (const Values& g : tiny.gradients()) EXPECT_EQ(g, Values(g.size(), 0.0));
  EXPECT_EQ(tiny.run(everything(), {}), nll);
}

TEST(Mllama, TheDryRunKnowsTheMemoryToTheByte) {
  const Batch batch = everything();
  for (const DType type : {DType::f32, DType::bf16, DType::f16}) {
    for (const Recompute r : {Recompute::all, Recompute::attention_saved, Recompute::none}) {
      const autograd::SegmentTape::Options options{.recompute = r, .dropout = true};
      TinyModel real = tiny_mllama({.compute = type, .nf4 = true, .dropout = 0.2});
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
      const auto model = build_model(tiny_mllama_config(), builder);
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

TEST(Mllama, PackedIsSeparate) {
  for (const DType type : {DType::f64, DType::f32}) {
    TinyModel together = tiny_mllama({.compute = type});
    TinyModel apart = tiny_mllama({.compute = type});
    const Values nll = together.run(everything(), {});
    Values separate;
    for (const Batch& b : {one_picture(), no_picture(), two_pictures(), run_of_pictures()}) {
      for (const double n : apart.run(b, {})) separate.push_back(n);
    }
    const double allowed = 4096 * roundoff(type);  // the operations of a few layers
    ASSERT_EQ(nll.size(), separate.size());
    for (std::size_t i = 0; i < nll.size(); ++i) EXPECT_NEAR(nll[i], separate[i], allowed);
    const auto a = together.gradients(), b = apart.gradients();
    for (std::size_t i = 0; i < a.size(); ++i) {
      for (std::size_t e = 0; e < a[i].size(); ++e) ASSERT_NEAR(a[i][e], b[i][e], allowed);
    }
  }
}

TEST(Mllama, SamplesDoNotSeeEachOther) {
  TinyModel tiny = tiny_mllama({});
  const Values before = tiny.run(packed(one_picture(), two_pictures()), {.training = false});
  Batch other = two_pictures();
  for (float& v : other.input.patches) v = -v;
  other.input.ids[0] = 11;
  const Values after = tiny.run(packed(one_picture(), other), {.training = false});
  EXPECT_EQ(before[0], after[0]);
  EXPECT_EQ(before[1], after[1]);
  EXPECT_NE(before[2], after[2]);
}

// A row sees the last picture before it and not the one after; text in front of all pictures sees
// them, as in the reference.
TEST(Mllama, RowsSeeTheirPictures) {
  TinyModel tiny = tiny_mllama({});
  const Batch batch = two_pictures();
  const Values before = tiny.run(batch, {.training = false});
  const auto with_changed = [&](std::size_t value) {
    Batch other = batch;
    other.input.patches[value] += 0.5f;
    return tiny.run(other, {.training = false});
  };
  const Values first = with_changed(3);
  EXPECT_NE(first[0], before[0]);
  EXPECT_NE(first[1], before[1]);  // through the text between
  Batch bare = batch;
  bare.input.ids[0] = 5;
  EXPECT_NE(tiny.run(bare, {.training = false})[0], before[0]);
  const Values second = with_changed(4 * 12 + 3);
  EXPECT_NE(second[0], before[0]);  // through the row before the first picture
  EXPECT_NE(second[1], before[1]);
  Batch later = batch;
  later.input.ids[6] = 4;  // after the last row that is read
  EXPECT_EQ(tiny.run(later, {.training = false}), before);
}

TEST(Mllama, FeaturesOfBothKindsDiffer) {
  TinyModel in = tiny_mllama({}), out = tiny_mllama({}, true);
  EXPECT_NE(in.run(one_picture(), {.training = false}),
            out.run(one_picture(), {.training = false}));
}

TEST(Mllama, TextOnlySkipsTheCrossBlocks) {
  TinyModel tiny = tiny_mllama({});
  EXPECT_TRUE(std::isfinite(tiny.run(no_picture(), {})[0]));
  const std::vector<Values> g = tiny.gradients();
  for (std::size_t i = 0; i < g.size(); ++i) {
    const std::string& name = tiny.builder().modules()[i / 2]->name;
    const bool takes_part =
        name.find("vision") == std::string::npos && name.find("layers.1.") == std::string::npos;
    EXPECT_EQ(g[i] != Values(g[i].size(), 0.0), takes_part) << name;
  }
}

TEST(Mllama, PlaceholdersMustMatchThePictures) {
  TinyModel tiny = tiny_mllama({});
  const auto refused = [&](Batch batch, auto&& change) {
    change(batch);
    EXPECT_THROW(tiny.run(batch, {}), UserError);
  };
  refused(one_picture(), [](Batch& b) { b.input.ids[2] = 1; });
  refused(one_picture(), [](Batch& b) { b.input.ids[1] = kPicture; });
  refused(one_picture(), [](Batch& b) { b.input.grids[0].h = 3; });
  refused(one_picture(), [](Batch& b) { b.input.grids[0].w = 10; });
}

}  // namespace
}  // namespace medvqa::models::testing_models
