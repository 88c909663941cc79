// A whole mllama of a few thousand parameters with tiles of 2 x 2 patches: 5 tokens and 3 of
// padding each; and samples with no, one and two pictures.
#pragma once

#include <nlohmann/json.hpp>

#include "tests/models/tiny_qwen2_vl.h"

namespace medvqa::models::testing_models {

inline constexpr std::int32_t kPicture = 24;  // beyond the head's rows

inline nlohmann::json tiny_mllama_config(bool block_output = false) {
  return {{"model_type", "mllama"},
          {"vision_features", block_output ? "block_output" : "block_input"},
          {"tie_word_embeddings", false},
          {"image_token_index", kPicture},
          {"vision_config",
           {{"hidden_size", 8},
            {"intermediate_size", 12},
            {"attention_heads", 2},
            {"num_hidden_layers", 2},
            {"num_global_layers", 1},
            {"num_channels", 3},
            {"patch_size", 2},
            {"image_size", 4},
            {"max_num_tiles", 4},
            {"norm_eps", 1e-5},
            {"vision_output_dim", 24},
            {"intermediate_layers_indices", {0, 1}}}},
          {"text_config",
           {{"vocab_size", 24},
            {"hidden_size", 16},
            {"intermediate_size", 20},
            {"num_hidden_layers", 3},
            {"num_attention_heads", 2},
            {"num_key_value_heads", 1},
            {"rms_norm_eps", 1e-5},
            {"hidden_act", "silu"},
            {"cross_attention_layers", {1}},
            {"rope_parameters",
             {{"rope_type", "llama3"},
              {"rope_theta", 1e4},
              {"factor", 8.0},
              {"low_freq_factor", 1.0},
              {"high_freq_factor", 4.0},
              {"original_max_position_embeddings", 64}}}}}};
}

// Patches of pictures of the given tiles down and across.
inline void add_picture(Batch& b, const std::string& name, std::int64_t high, std::int64_t wide) {
  const std::int64_t rows = high * wide * 4;
  const Values v = medvqa::testing::random_values(name, rows * 12);
  b.input.patches.insert(b.input.patches.end(), v.begin(), v.end());
  b.input.grids.push_back({1, high * 2, wide * 2});
  b.input.patch_rows += rows;
}

inline Batch mllama_sample(std::vector<std::int32_t> ids, std::vector<std::int32_t> rows) {
  Batch b;
  b.input.cu_seqlens = {0, static_cast<std::int32_t>(ids.size())};
  for (const std::int32_t r : rows) b.labels.push_back(ids[static_cast<std::size_t>(r) + 1]);
  b.input.ids = std::move(ids);
  b.rows = std::move(rows);
  return b;
}

inline Batch no_picture() {
  return mllama_sample({3, 20, 5, 9}, {2});
}
inline Batch one_picture() {
  Batch b = mllama_sample({3, 20, kPicture, 22, 5, 9}, {3, 4});
  add_picture(b, "one", 1, 2);
  return b;
}
// One after the other, and the second without text before it.
inline Batch two_pictures() {
  Batch b = mllama_sample({3, kPicture, 7, 1, kPicture, 22, 0}, {2, 5});
  add_picture(b, "two", 1, 1);
  add_picture(b, "three", 2, 2);
  return b;
}
inline Batch run_of_pictures() {
  Batch b = mllama_sample({kPicture, kPicture, 7, 1, 22, 2}, {3, 4});
  add_picture(b, "four", 3, 1);
  add_picture(b, "five", 1, 1);
  return b;
}

}  // namespace medvqa::models::testing_models
