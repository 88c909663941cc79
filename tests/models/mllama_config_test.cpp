#include <gtest/gtest.h>

#include "medvqa/models/mllama/config.h"
#include "tests/models/model_invariants.h"
#include "tests/models/tiny_mllama.h"

namespace medvqa::models::testing_models {
namespace {

using nlohmann::json;

// reference-models.md A2, in the nested form; `large` is the 90B model.
json released_config(bool large, int image_size = 560) {
  json cross = json::array();
  for (int i = 3; i < (large ? 100 : 40); i += 5) cross.push_back(i);
  return {{"model_type", "mllama"},
          {"tie_word_embeddings", false},
          {"image_token_index", 128256},
          {"vision_config",
           {{"hidden_size", 1280},
            {"attention_heads", 16},
            {"num_hidden_layers", 32},
            {"num_global_layers", 8},
            {"intermediate_size", 5120},
            {"patch_size", 14},
            {"image_size", image_size},
            {"max_num_tiles", 4},
            {"vision_output_dim", 7680},
            {"intermediate_layers_indices", {3, 7, 15, 23, 30}}}},
          {"text_config",
           {{"vocab_size", 128256},
            {"hidden_size", large ? 8192 : 4096},
            {"intermediate_size", large ? 28672 : 14336},
            {"num_hidden_layers", large ? 100 : 40},
            {"num_attention_heads", large ? 64 : 32},
            {"num_key_value_heads", 8},
            {"rms_norm_eps", 1e-5},
            {"cross_attention_layers", cross},
            {"rope_parameters",
             {{"rope_theta", 500000.0},
              {"rope_type", "llama3"},
              {"factor", 8.0},
              {"low_freq_factor", 1.0},
              {"high_freq_factor", 4.0},
              {"original_max_position_embeddings", 8192}}}}}};
}

TEST(MllamaConfig, ParametersOfTheReleasedModels) {
  const ModelSize eleven = size_of_model(released_config(false), false);
  EXPECT_EQ(eleven.frozen, 10670220835);
  EXPECT_EQ(eleven.trainable, 67174400);
  EXPECT_EQ(eleven.tensors, 906u);
  // Tiles of 448 pixels: 576 positions less, for themselves and for 9 x 4 tiles each.
  const ModelSize base = size_of_model(released_config(false, 448), false);
  EXPECT_EQ(base.frozen, 10642941475);
  EXPECT_EQ(eleven.frozen - base.frozen, 576 * 1280 * 37);
  EXPECT_EQ(base.trainable, 67174400);
  EXPECT_EQ(base.tensors, 906u);
  // 100 layers, every fifth of them a cross layer.
  const ModelSize ninety = size_of_model(released_config(true), false);
  EXPECT_EQ(ninety.frozen, 88593355323);
  EXPECT_EQ(ninety.trainable, 273612800);
  EXPECT_EQ(ninety.tensors, 1494u);
  EXPECT_EQ(size_of_model(released_config(true, 448), false).frozen, 88566075963);
}

TEST(MllamaConfig, ReadsWhatItSays) {
  const mllama::Config c = mllama::read_config(released_config(false));
  EXPECT_EQ(c.vision.tile_tokens(), 1601);
  EXPECT_EQ(c.vision.tile_pads(), 7);
  EXPECT_EQ(c.vision.head_size(), 80);
  EXPECT_EQ(c.vision.patch_columns(), 588);
  EXPECT_EQ(c.vision.ratios.size(), 8u);
  EXPECT_EQ(c.vision.features, mllama::VisionFeatures::block_input);
  EXPECT_EQ(c.text.kv_channels(), 1024);
  EXPECT_FALSE(c.text.qkv_bias);
  EXPECT_TRUE(c.text.is_cross(38));
  EXPECT_FALSE(c.text.is_cross(39));
  ASSERT_TRUE(c.text.scaling);
  EXPECT_EQ(c.text.scaling->original_positions, 8192);
  json bare = released_config(false);
  bare["text_config"]["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 1e4}};
  bare["text_config"].erase("cross_attention_layers");
  bare["vision_features"] = "block_output";
  const mllama::Config plain = mllama::read_config(bare);
  EXPECT_FALSE(plain.text.scaling);
  EXPECT_EQ(plain.text.rope_theta, 1e4);
  EXPECT_EQ(plain.text.cross_layers.size(), 8u);
  EXPECT_EQ(plain.vision.features, mllama::VisionFeatures::block_output);
}

struct Change {
  const char* pointer;
  json value;         // null removes the key
  const char* named;  // what the complaint must name
};

TEST(MllamaConfig, RefusesImpossibleValuesByName) {
  const std::vector<Change> changes{
      {"/text_config/vocab_size", nullptr, "text_config.vocab_size"},
      {"/text_config/hidden_size", 15, "num_attention_heads"},
      {"/text_config/num_key_value_heads", 3, "text_config.num_key_value_heads"},
      {"/text_config/hidden_act", "gelu", "text_config.hidden_act"},
      {"/text_config/dropout", 0.1, "text_config.dropout"},
      {"/text_config/cross_attention_layers", {3}, "text_config.cross_attention_layers"},
      {"/text_config/cross_attention_layers", {1, 1}, "text_config.cross_attention_layers"},
      {"/text_config/cross_attention_layers", {0.5}, "text_config.cross_attention_layers"},
      {"/text_config/rope_parameters/rope_type", "yarn", "rope_parameters.rope_type"},
      {"/text_config/rope_parameters/factor", nullptr, "rope_parameters.factor"},
      {"/text_config/rope_parameters/low_freq_factor", 4.0, "text_config.rope_parameters"},
      {"/vision_config", nullptr, "vision_config"},
      {"/vision_config/attention_heads", 3, "vision_config.attention_heads"},
      {"/vision_config/image_size", 5, "vision_config.image_size"},
      {"/vision_config/max_num_tiles", 65, "vision_config.max_num_tiles"},
      {"/vision_config/hidden_act", "quick_gelu", "vision_config.hidden_act"},
      {"/vision_config/vision_output_dim", 16, "vision_config.vision_output_dim"},
      {"/vision_config/intermediate_layers_indices", {0, 2}, "intermediate_layers_indices"},
      {"/vision_config/supported_aspect_ratios", {{1, 5}}, "supported_aspect_ratios"},
      {"/vision_config/supported_aspect_ratios", {1}, "supported_aspect_ratios"},
      {"/vision_config/supported_aspect_ratios", json::array(), "supported_aspect_ratios"},
      {"/image_token_index", 32, "image_token_index"},
      {"/vision_features", "both", "vision_features"},
      {"/tie_word_embeddings", true, "tie_word_embeddings"}};
  for (const Change& change : changes) {
    json config = tiny_mllama_config();
    const json::json_pointer at(change.pointer);
    if (change.value.is_null()) {
      config.at(at.parent_pointer()).erase(at.back());
    } else {
      config[at] = change.value;
    }
    try {
      mllama::read_config(config);
      ADD_FAILURE() << change.pointer << " " << change.value << " was taken";
    } catch (const UserError& e) {
      EXPECT_EQ(e.code(), ExitCode::model);
      EXPECT_NE(std::string(e.what()).find(change.named), std::string::npos) << e.what();
    }
  }
}

TEST(MllamaConfig, PositionsAndTheLargestInput) {
  PackedInput input;
  input.ids = {1, 2, 3, 4, 5};
  input.cu_seqlens = {0, 3, 5};
  EXPECT_EQ(token_positions(tiny_mllama_config(), input),
            (std::vector<std::vector<std::int32_t>>{{0, 1, 2, 0, 1}}));
  const PackedInput most = largest_input(tiny_mllama_config(), 40, 64, 2);
  EXPECT_EQ(most.tokens(), 80);
  EXPECT_EQ(most.samples(), 2);
  ASSERT_EQ(most.grids.size(), 2u);
  EXPECT_EQ(most.patch_rows, 2 * 4 * 4);  // four tiles of 4 patches each
  EXPECT_EQ(largest_input(tiny_mllama_config(), 40, 16, 1).patch_rows, 4);
}

}  // namespace
}  // namespace medvqa::models::testing_models
