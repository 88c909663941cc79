#include <gtest/gtest.h>

#include "medvqa/models/qwen2_vl/config.h"
#include "tests/models/model_invariants.h"

namespace medvqa::models::testing_models {
namespace {

using nlohmann::json;

// reference-models.md B2, in the nested form.
json released_config(bool seven_billion) {
  const bool b = seven_billion;
  return {{"model_type", "qwen2_vl"},
          {"tie_word_embeddings", !b},
          {"image_token_id", 151655},
          {"vision_config",
           {{"depth", 32},
            {"embed_dim", 1280},
            {"mlp_ratio", 4},
            {"num_heads", 16},
            {"in_channels", 3},
            {"patch_size", 14},
            {"spatial_merge_size", 2},
            {"temporal_patch_size", 2},
            {"hidden_size", b ? 3584 : 1536}}},
          {"text_config",
           {{"vocab_size", b ? 152064 : 151936},
            {"hidden_size", b ? 3584 : 1536},
            {"intermediate_size", b ? 18944 : 8960},
            {"num_hidden_layers", 28},
            {"num_attention_heads", b ? 28 : 12},
            {"num_key_value_heads", b ? 4 : 2},
            {"hidden_act", "silu"},
            {"rms_norm_eps", 1e-6},
            {"use_sliding_window", false},
            {"rope_parameters", {{"rope_theta", 1000000.0}, {"mrope_section", {16, 24, 24}}}}}}};
}

TEST(Qwen2VlConfig, ParametersOfTheReleasedModels) {
  for (const bool nf4 : {false, true}) {
    const ModelSize two = size_of_model(released_config(false), nf4);
    EXPECT_EQ(two.frozen, 2208985600);
    EXPECT_EQ(two.trainable, 28950528);
    const ModelSize seven = size_of_model(released_config(true), nf4);
    EXPECT_EQ(seven.frozen, 8291375616);
    EXPECT_EQ(seven.trainable, 50855936);
    // f32 values and gradients; every tensor here is a multiple of the arena's alignment.
    EXPECT_EQ(two.adapters, std::size_t{28950528} * 8);
    if (nf4) {
      EXPECT_LT(two.weights, 2208985600u);
    } else {
      EXPECT_EQ(two.weights, std::size_t{2208985600} * 2);
    }
  }
}

TEST(Qwen2VlConfig, ReadsWhatItSays) {
  const qwen2_vl::Config c = qwen2_vl::read_config(released_config(true));
  EXPECT_EQ(c.vision.head_size(), 80);
  EXPECT_EQ(c.vision.patch_columns(), 1176);
  EXPECT_EQ(c.vision.feed_forward, 5120);
  EXPECT_EQ(c.text.head_size(), 128);
  EXPECT_EQ(c.text.kv_heads, 4);
  EXPECT_EQ(c.text.mrope_section, (std::array<std::int64_t, 3>{16, 24, 24}));
  EXPECT_FALSE(c.tied_head);
}

struct Change {
  const char* pointer;  // JSON pointer; "" removes nothing
  json value;           // null removes the key
  const char* named;    // what the complaint must name
};

TEST(Qwen2VlConfig, RefusesImpossibleValuesByName) {
  const std::vector<Change> changes{
      {"/text_config/vocab_size", nullptr, "text_config.vocab_size"},
      {"/text_config/hidden_size", 15, "num_attention_heads"},
      {"/text_config/hidden_size", "16", "text_config.hidden_size"},
      {"/text_config/num_hidden_layers", 0, "text_config.num_hidden_layers"},
      {"/text_config/num_hidden_layers", -3, "text_config.num_hidden_layers"},
      {"/text_config/num_hidden_layers", 2.5, "text_config.num_hidden_layers"},
      {"/text_config/num_hidden_layers", 1e300, "text_config.num_hidden_layers"},
      {"/text_config/intermediate_size", 4294967296, "text_config.intermediate_size"},
      {"/text_config/num_key_value_heads", 3, "text_config.num_key_value_heads"},
      {"/text_config/hidden_act", "gelu", "text_config.hidden_act"},
      {"/text_config/use_sliding_window", true, "text_config.use_sliding_window"},
      {"/text_config/use_sliding_window", 1, "text_config.use_sliding_window"},
      {"/text_config/rms_norm_eps", "small", "text_config.rms_norm_eps"},
      {"/text_config/rms_norm_eps", -1e-6, "text_config.rms_norm_eps"},
      {"/text_config/rope_parameters/rope_theta", 0, "text_config.rope_parameters.rope_theta"},
      {"/vision_config/mlp_ratio", -4, "vision_config.mlp_ratio"},
      {"/text_config/rope_parameters", nullptr, "text_config.rope_parameters"},
      {"/text_config/rope_parameters", 3, "text_config.rope_parameters"},
      {"/text_config/rope_parameters/mrope_section", nullptr, "rope_parameters.mrope_section"},
      {"/text_config/rope_parameters/mrope_section", {1, 1}, "rope_parameters.mrope_section"},
      {"/text_config/rope_parameters/mrope_section", {1, 1, 3}, "rope_parameters.mrope_section"},
      {"/text_config/rope_parameters/mrope_section", {-1, 2, 3}, "rope_parameters.mrope_section"},
      {"/text_config/rope_parameters/mrope_section", "x", "rope_parameters.mrope_section"},
      {"/text_config/rope_parameters/rope_type", "yarn", "text_config.rope_parameters.rope_type"},
      {"/text_config/head_dim", 4, "text_config.head_dim"},
      {"/text_config/attention_dropout", 0.1, "text_config.attention_dropout"},
      {"/vision_config", nullptr, "vision_config"},
      {"/vision_config/num_heads", 3, "vision_config.num_heads"},
      {"/vision_config/num_heads", 8, "vision_config.num_heads"},  // head size 2
      {"/vision_config/hidden_act", "silu", "vision_config.hidden_act"},
      {"/vision_config/rope_parameters", {{"rope_type", "linear"}}, "rope_parameters.rope_type"},
      {"/vision_config/patch_size", false, "vision_config.patch_size"},
      {"/image_token_id", 24, "image_token_id"},
      {"/tie_word_embeddings", "yes", "tie_word_embeddings"}};
  for (const Change& change : changes) {
    json config = tiny_config();
    const json::json_pointer at(change.pointer);
    if (change.value.is_null()) {
      config.at(at.parent_pointer()).erase(at.back());
    } else {
      config[at] = change.value;
    }
    try {
      qwen2_vl::read_config(config);
      ADD_FAILURE() << change.pointer << " " << change.value << " was taken";
    } catch (const UserError& e) {
      EXPECT_EQ(e.code(), ExitCode::model);
      EXPECT_NE(std::string(e.what()).find(change.named), std::string::npos) << e.what();
    }
  }
}

TEST(Qwen2VlConfig, UnknownArchitecturesAreRefused) {
  json config = tiny_config();
  config["model_type"] = "qwen3_vl";
  TestDevice d(DType::f32, 4096);
  MemoryWeights source({});
  nn::Builder b(d.backend(), source, d.tensors(), d.tensors(), DType::f32, {},
                nn::QuantizeOnLoad::no);
  try {
    build_model(config, b);
    FAIL();
  } catch (const UserError& e) {
    EXPECT_NE(std::string(e.what()).find("qwen3_vl"), std::string::npos);
  }
  EXPECT_THROW(token_positions(config, {}), UserError);
  EXPECT_THROW(build_model(json::array(), b), UserError);
}

}  // namespace
}  // namespace medvqa::models::testing_models
