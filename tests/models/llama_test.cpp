#include "medvqa/models/llama/model.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/models/model_invariants.h"

namespace medvqa::models::testing_models {
namespace {

using nlohmann::json;

// Three heads on one pair of keys and values.
json tiny_llama_config(bool scaled, bool tied) {
  json rope{{"rope_type", "default"}, {"rope_theta", 1e4}};
  if (scaled) {
    rope.update({{"rope_type", "llama3"},
                 {"factor", 8.0},
                 {"low_freq_factor", 1.0},
                 {"high_freq_factor", 4.0},
                 {"original_max_position_embeddings", 16}});
  }
  return {{"model_type", "llama"},
          {"tie_word_embeddings", tied},
          {"text_config",
           {{"vocab_size", 24},
            {"hidden_size", 12},
            {"intermediate_size", 20},
            {"num_hidden_layers", 2},
            {"num_attention_heads", 3},
            {"num_key_value_heads", 1},
            {"rms_norm_eps", 1e-5},
            {"hidden_act", "silu"},
            {"attention_bias", false},
            {"head_dim", nullptr},
            {"rope_parameters", rope}}}};
}

TinyModel tiny_llama(TinyModel::Options o, bool scaled = true, bool tied = false) {
  o.config = tiny_llama_config(scaled, tied);
  return TinyModel(o);
}

Batch first_text() {
  return {{{3, 20, 21, 22, 5, 9}, {0, 6}, {}, {}, 0}, {3, 4}, {5, 9}};
}
Batch second_text() {
  return {{{7, 1, 20, 0}, {0, 4}, {}, {}, 0}, {2}, {0}};
}

json released_config() {
  return {{"model_type", "llama"},
          {"tie_word_embeddings", false},
          {"text_config",
           {{"vocab_size", 128256},
            {"hidden_size", 4096},
            {"intermediate_size", 14336},
            {"num_hidden_layers", 32},
            {"num_attention_heads", 32},
            {"num_key_value_heads", 8},
            {"rms_norm_eps", 1e-5},
            {"rope_parameters", {{"rope_type", "default"}, {"rope_theta", 500000.0}}}}}};
}

TEST(Llama, ParametersOfTheReleasedModel) {
  const nn::DescribedWeights source({});
  ops::DryBackend dry(ops::DeviceTraits{.name = "dry"});
  Arena weights("weights"), adapters("adapters");
  nn::Builder builder(dry, source, weights, adapters, DType::bf16,
                      medvqa::testing::adapt_all(16, 1), nn::QuantizeOnLoad::no);
  build_model(released_config(), builder);
  EXPECT_EQ(builder.count().frozen, 8030261248);
  EXPECT_EQ(builder.count().trainable, 41943040);
  EXPECT_EQ(source.requests().size(), 291u);
  EXPECT_EQ(source.requests().front().name, "model.embed_tokens.weight");
  EXPECT_EQ(builder.modules().front()->name, "model.layers.0.self_attn.q_proj");
  EXPECT_EQ(patch_columns(released_config()), 0);
}

TEST(Llama, ConfigurationAndItsRefusals) {
  const llama::Config c = llama::read_config(tiny_llama_config(true, true));
  EXPECT_TRUE(c.tied_head);
  EXPECT_EQ(c.head_size(), 4);
  ASSERT_TRUE(c.scaling);
  EXPECT_EQ(c.scaling->original_positions, 16);
  json bare = tiny_llama_config(false, false);
  bare["text_config"].erase("rope_parameters");
  bare["text_config"].erase("rms_norm_eps");
  EXPECT_FALSE(llama::read_config(bare).scaling);
  EXPECT_EQ(llama::read_config(bare).rope_theta, 1e4);
  EXPECT_EQ(llama::read_config(bare).eps, 1e-6);
  const std::vector<std::pair<const char*, json>> changes{
      {"vocab_size", nullptr},
      {"hidden_size", 13},
      {"num_key_value_heads", 2},
      {"hidden_act", "gelu"},
      {"attention_bias", true},
      {"mlp_bias", true},
      {"attention_dropout", 0.1},
      {"head_dim", 8},
      {"rope_parameters", json{{"rope_type", "yarn"}, {"rope_theta", 1e4}}}};
  for (const auto& [key, value] : changes) {
    json config = tiny_llama_config(false, false);
    config["text_config"][key] = value;
    try {
      llama::read_config(config);
      ADD_FAILURE() << key;
    } catch (const UserError& error) {
      EXPECT_EQ(error.code(), ExitCode::model) << key;
      EXPECT_NE(std::string(error.what()).find("text_config."), std::string::npos) << error.what();
    }
  }
}

// Every LoRA scalar, with and without scaled positions, tied and not.
TEST(Llama, EveryAdapterGradientAgreesWithDifferences) {
  for (const bool both : {false, true}) {
    TinyModel tiny = tiny_llama({}, both, both);
    expect_gradients_agree(tiny, packed(first_text(), second_text()), 0);
  }
}

TEST(Llama, PoliciesAgreeBitForBit) {
  expect_policies_agree(with_config(tiny_llama_config(true, false)),
                        packed(first_text(), second_text()));
}

TEST(Llama, PackedIsSeparateAndCausal) {
  expect_packed_is_separate(with_config(tiny_llama_config(true, false)),
                            {first_text(), second_text()});
  TinyModel tiny = tiny_llama({});
  Batch later = first_text();
  later.input.ids[5] = 4;  // after the last row that is read
  EXPECT_EQ(tiny.run(later, {.training = false}), tiny.run(first_text(), {}));
}

TEST(Llama, ScalingAndTyingAreSeen) {
  const Values plain = tiny_llama({}, false, false).run(first_text(), {.training = false});
  EXPECT_NE(tiny_llama({}, true, false).run(first_text(), {.training = false}), plain);
  EXPECT_NE(tiny_llama({}, false, true).run(first_text(), {.training = false}), plain);
}

TEST(Llama, TheLargestSampleIsText) {
  const PackedInput input = largest_input(tiny_llama_config(false, false), 40, 0, 3);
  EXPECT_EQ(input.tokens(), 120);
  EXPECT_EQ(input.samples(), 3);
  EXPECT_TRUE(input.grids.empty());
  const auto places = token_positions(tiny_llama_config(false, false), input);
  ASSERT_EQ(places.size(), 1u);
  EXPECT_EQ(places[0][39], 39);
  EXPECT_EQ(places[0][40], 0);
}

}  // namespace
}  // namespace medvqa::models::testing_models
