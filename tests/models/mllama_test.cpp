// The whole model, vision tower and decoder.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/models/model_invariants.h"
#include "tests/models/tiny_mllama.h"

namespace medvqa::models::testing_models {
namespace {

TinyModel tiny_mllama(TinyModel::Options o, bool block_output = false) {
  o.config = tiny_mllama_config(block_output);
  return TinyModel(o);
}

TinyModel::Options mllama() {
  return with_config(tiny_mllama_config());
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
  expect_policies_agree(mllama(), everything());
}

TEST(Mllama, ForwardOnlyGivesTheSameLoss) {
  expect_forward_only_agrees(mllama(), everything());
}

TEST(Mllama, TheDryRunKnowsTheMemoryToTheByte) {
  expect_the_plan_is_exact(mllama(), everything());
}

TEST(Mllama, PackedIsSeparate) {
  expect_packed_is_separate(mllama(),
                            {one_picture(), no_picture(), two_pictures(), run_of_pictures()});
}

TEST(Mllama, SamplesDoNotSeeEachOther) {
  expect_samples_apart(mllama(), one_picture(), two_pictures());
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
