// Qwen2.5-VL: the order of its windows, its configuration, the whole model.
#include <gtest/gtest.h>

#include <array>
#include <numeric>

#include "medvqa/models/qwen2_5_vl/vision.h"
#include "tests/models/model_invariants.h"

namespace medvqa::models::testing_models {
namespace {

using nlohmann::json;
using Indices = std::vector<std::int32_t>;

// Windows of 2 x 2 merged patches in the first block, whole frames in the second.
json tiny_window_config() {
  json config = tiny_config();
  config["model_type"] = "qwen2_5_vl";
  config["vision_config"] = {{"depth", 2},
                             {"hidden_size", 16},
                             {"num_heads", 2},
                             {"intermediate_size", 20},
                             {"out_hidden_size", 16},
                             {"window_size", 8},
                             {"fullatt_block_indexes", {1}},
                             {"patch_size", 2},
                             {"temporal_patch_size", 2},
                             {"spatial_merge_size", 2},
                             {"in_channels", 3},
                             {"hidden_act", "silu"}};
  return config;
}

TinyModel::Options windows() {
  return with_config(tiny_window_config());
}

// Words around an image of the given merged patches.
Batch sample_of(const std::string& name, std::int64_t rows, std::int64_t columns) {
  Batch b;
  b.input.ids = {3, 20};
  b.input.ids.insert(b.input.ids.end(), static_cast<std::size_t>(rows * columns), kImage);
  b.input.ids.insert(b.input.ids.end(), {22, 5, 9});
  b.input.cu_seqlens = {0, static_cast<std::int32_t>(b.input.ids.size())};
  b.input.grids = {{1, 2 * rows, 2 * columns}};
  b.input.patch_rows = b.input.grids[0].patches();
  b.input.patches = patches(name, b.input.patch_rows);
  b.rows = {static_cast<std::int32_t>(b.input.ids.size()) - 3,
            static_cast<std::int32_t>(b.input.ids.size()) - 2};
  b.labels = {5, 9};
  return b;
}
Batch wide() {
  return sample_of("wide", 3, 5);  // six windows, three of them smaller
}
Batch narrow() {
  return sample_of("narrow", 4, 1);
}

// From transformers' get_window_index (reference-models.md B5).
TEST(WindowOrder, GoldensOfTransformers) {
  const auto order = [](PatchGrid g) { return qwen2_5_vl::window_order({g}, 4, 2); };
  const auto part = order({1, 12, 20});
  EXPECT_EQ(part.merged, (Indices{0,  1,  2,  3,  10, 11, 12, 13, 20, 21, 22, 23, 30, 31, 32,
                                  33, 4,  5,  6,  7,  14, 15, 16, 17, 24, 25, 26, 27, 34, 35,
                                  36, 37, 8,  9,  18, 19, 28, 29, 38, 39, 40, 41, 42, 43, 50,
                                  51, 52, 53, 44, 45, 46, 47, 54, 55, 56, 57, 48, 49, 58, 59}));
  EXPECT_EQ(part.boundaries, (Indices{0, 64, 128, 160, 192, 224, 240}));
  const auto whole = order({1, 16, 16});
  EXPECT_EQ(whole.merged,
            (Indices{0,  1,  2,  3,  8,  9,  10, 11, 16, 17, 18, 19, 24, 25, 26, 27,
                     4,  5,  6,  7,  12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31,
                     32, 33, 34, 35, 40, 41, 42, 43, 48, 49, 50, 51, 56, 57, 58, 59,
                     36, 37, 38, 39, 44, 45, 46, 47, 52, 53, 54, 55, 60, 61, 62, 63}));
  EXPECT_EQ(whole.boundaries, (Indices{0, 64, 128, 192, 256}));
  Indices counted(16);
  std::iota(counted.begin(), counted.end(), 0);
  EXPECT_EQ(order({1, 8, 8}).merged, counted);
  EXPECT_EQ(order({1, 8, 8}).boundaries, (Indices{0, 64}));
  counted.resize(15);
  EXPECT_EQ(order({1, 10, 6}).merged, counted);
  EXPECT_EQ(order({1, 10, 6}).boundaries, (Indices{0, 48, 60}));
}

TEST(WindowOrder, FramesAndImagesFollowOneAnother) {
  const auto one = qwen2_5_vl::window_order({{1, 12, 20}}, 4, 2);
  const auto all = qwen2_5_vl::window_order({{1, 2, 4}, {2, 12, 20}}, 4, 2);
  ASSERT_EQ(all.merged.size(), 2 + 2 * one.merged.size());
  ASSERT_EQ(all.boundaries.size(), 1 + 1 + 2 * (one.boundaries.size() - 1));
  for (std::size_t i = 0; i < one.merged.size(); ++i) {
    EXPECT_EQ(all.merged[2 + i], one.merged[i] + 2);
    EXPECT_EQ(all.merged[62 + i], one.merged[i] + 62);
  }
  for (std::size_t i = 0; i < one.boundaries.size(); ++i) {
    EXPECT_EQ(all.boundaries[1 + i], one.boundaries[i] + 8);
    EXPECT_EQ(all.boundaries[7 + i], one.boundaries[i] + 248);
  }
}

// reference-models.md B5, in the nested form.
json released_config(bool seven_billion) {
  const bool b = seven_billion;
  return {{"model_type", "qwen2_5_vl"},
          {"tie_word_embeddings", !b},
          {"image_token_id", 151655},
          {"vision_config", {{"hidden_size", 1280}, {"out_hidden_size", b ? 3584 : 2048}}},
          {"text_config",
           {{"vocab_size", b ? 152064 : 151936},
            {"hidden_size", b ? 3584 : 2048},
            {"intermediate_size", b ? 18944 : 11008},
            {"num_hidden_layers", b ? 28 : 36},
            {"num_attention_heads", b ? 28 : 16},
            {"num_key_value_heads", b ? 4 : 2},
            {"rope_parameters", {{"rope_theta", 1000000.0}, {"mrope_section", {16, 24, 24}}}}}}};
}

TEST(Qwen25VlConfig, ParametersOfTheReleasedModels) {
  for (const bool nf4 : {false, true}) {
    const ModelSize three = size_of_model(released_config(false), nf4);
    EXPECT_EQ(three.tensors, 824u);
    EXPECT_EQ(three.frozen, 3754622976);
    EXPECT_EQ(three.trainable, 41084928);
    const ModelSize seven = size_of_model(released_config(true), nf4);
    EXPECT_EQ(seven.tensors, 729u);
    EXPECT_EQ(seven.frozen, 8292166656);
    EXPECT_EQ(seven.trainable, 51521536);
  }
}

TEST(Qwen25VlConfig, ReadsWhatItSays) {
  const auto c = qwen2_5_vl::read_config(released_config(true));
  EXPECT_EQ(c.vision.head_size(), 80);
  EXPECT_EQ(c.vision.feed_forward, 3420);
  EXPECT_EQ(c.window, 4);
  ASSERT_EQ(c.windowed.size(), 32u);
  for (std::size_t i = 0; i < 32; ++i) EXPECT_EQ(c.windowed[i], i % 8 != 7) << i;
  EXPECT_EQ(c.text.eps, 1e-5);  // the class's, where the file says nothing
  const auto tiny = qwen2_5_vl::read_config(tiny_window_config());
  EXPECT_EQ(tiny.window, 2);
  EXPECT_EQ(tiny.windowed, (std::vector<bool>{true, false}));
  json none = tiny_window_config();
  none["vision_config"]["fullatt_block_indexes"] = {5};
  EXPECT_EQ(qwen2_5_vl::read_config(none).windowed, (std::vector<bool>{true, true}));
}

TEST(Qwen25VlConfig, RefusesImpossibleValuesByName) {
  const std::vector<std::pair<const char*, json>> changes{
      {"window_size", 3},
      {"window_size", "8"},
      {"fullatt_block_indexes", 7},
      {"fullatt_block_indexes", {-1}},
      {"fullatt_block_indexes", {0.5}},
      {"out_hidden_size", 24},
      {"out_hidden_size", nullptr},  // 3584 where it is missing
      {"hidden_act", "quick_gelu"},
      {"num_heads", 3},
      {"intermediate_size", 0},
      {"rope_parameters", {{"rope_type", "linear"}}}};
  for (const auto& [key, value] : changes) {
    json config = tiny_window_config();
    config["vision_config"][key] = value;
    try {
      qwen2_5_vl::read_config(config);
      ADD_FAILURE() << key << " " << value << " was taken";
    } catch (const UserError& e) {
      EXPECT_EQ(e.code(), ExitCode::model);
      EXPECT_NE(std::string(e.what()).find(std::string("vision_config.") + key), std::string::npos)
          << e.what();
    }
  }
}

// Every LoRA scalar of the model; 2 x 3 merged patches are two windows in an order of their own.
TEST(Qwen25Vl, EveryAdapterGradientAgreesWithDifferences) {
  TinyModel tiny(windows());
  expect_gradients_agree(tiny, sample_of("both", 2, 3), 1e-6);
}

TEST(Qwen25Vl, PoliciesAgreeBitForBit) {
  expect_policies_agree(windows(), packed(wide(), narrow()));
}

TEST(Qwen25Vl, ForwardOnlyGivesTheSameLoss) {
  expect_forward_only_agrees(windows(), packed(wide(), narrow()));
}

TEST(Qwen25Vl, TheDryRunKnowsTheMemoryToTheByte) {
  expect_the_plan_is_exact(windows(), packed(wide(), narrow()));
}

// The plan looks at one batch of those with as many patches and tokens: their images may be cut
// into more windows, and into smaller ones.
TEST(Qwen25Vl, MemoryDoesNotDependOnTheShapesOfImages) {
  json config = tiny_window_config();
  config["vision_config"]["fullatt_block_indexes"] = json::array();
  TinyModel::Options options = with_config(config);
  const auto peaks = [&](std::int64_t rows, std::int64_t columns) {
    return dry_peaks(options, sample_of("any", rows, columns), {}, {});
  };
  EXPECT_EQ(peaks(16, 1), peaks(4, 4));
}

TEST(Qwen25Vl, PackedIsSeparate) {
  expect_packed_is_separate(windows(), {wide(), narrow(), second_sample()});
}

TEST(Qwen25Vl, SamplesDoNotSeeEachOther) {
  expect_samples_apart(windows(), wide(), narrow());
}

// Features of the merged patches, in reading order: which of them move with the first pixel of one.
std::vector<bool> moved_by(const json& config, std::size_t merged) {
  const Batch batch = wide();
  Batch other = batch;
  other.input.patches[merged * 4 * 24] += 0.5f;
  TestDevice device(DType::f64, std::size_t{4} << 20);
  const MemoryWeights source({.dtype = DType::f64});
  nn::Builder builder(device.backend(), source, device.tensors(), device.tensors(), DType::f64, {},
                      nn::QuantizeOnLoad::no);
  const qwen2_5_vl::VisionTower tower(builder, "model.visual", qwen2_5_vl::read_config(config));
  const auto features = [&](const PackedInput& input) {
    Arena::Scope step(device.step()), block(device.block());
    autograd::SegmentTape tape(device.backend(), device.memory(), {.training = false});
    return device.get(tower.forward(tape, input, DType::f64).value);
  };
  const Values before = features(batch.input), after = features(other.input);
  std::vector<bool> moved(15, false);
  for (std::size_t i = 0; i < before.size(); ++i) {
    if (before[i] != after[i]) moved[i / 16] = true;
  }
  return moved;
}

// 3 x 5 merged patches in windows of 2 x 2: number 6 is in the first window, 14 in the last.
TEST(Qwen25Vl, BlocksSeeTheirWindowsOrTheWholeFrame) {
  json config = tiny_window_config();
  config["vision_config"]["fullatt_block_indexes"] = json::array();
  std::vector<bool> expected(15, false);
  for (const std::size_t m : {0u, 1u, 5u, 6u}) expected[m] = true;
  EXPECT_EQ(moved_by(config, 6), expected);
  expected.assign(15, false);
  expected[14] = true;
  EXPECT_EQ(moved_by(config, 14), expected);
  EXPECT_EQ(moved_by(tiny_window_config(), 6), std::vector<bool>(15, true));
}

TEST(Qwen25Vl, PositionsAndTheLargestSampleAreQwen2Vls) {
  const PackedInput input = largest_input(tiny_window_config(), 64, 4 * 4 * 30, 2);
  EXPECT_EQ(input.samples(), 2);
  EXPECT_EQ(input.grids.size(), 2u);
  EXPECT_EQ(token_positions(tiny_window_config(), input), token_positions(tiny_config(), input));
  EXPECT_EQ(patch_columns(tiny_window_config()), 24);
}

}  // namespace
}  // namespace medvqa::models::testing_models
