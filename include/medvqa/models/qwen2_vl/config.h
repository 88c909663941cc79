// The numbers of a Qwen2-VL model. Wang et al. 2024; keys as in its config.json.
#pragma once

#include <array>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>

#include "medvqa/models/decoder_config.h"

namespace medvqa::models::qwen2_vl {

struct VisionConfig {
  std::int64_t depth = 32;
  std::int64_t channels = 1280;  // embed_dim
  std::int64_t heads = 16;
  std::int64_t feed_forward = 5120;  // embed_dim * mlp_ratio
  std::int64_t in_channels = 3;
  std::int64_t patch_size = 14;
  std::int64_t temporal_patch_size = 2;
  std::int64_t merge_size = 2;
  double rope_theta = 10000;
  std::int64_t head_size() const { return channels / heads; }
  std::int64_t patch_columns() const {
    return in_channels * temporal_patch_size * patch_size * patch_size;
  }
};

struct TextConfig : DecoderConfig {
  std::array<std::int64_t, 3> mrope_section{16, 24, 24};
};

struct Config {
  VisionConfig vision;
  TextConfig text;
  bool tied_head = false;
  std::int32_t image_token_id = 151655;
};

// What Qwen2.5-VL's vision_config says alike; channels and feed_forward are read before.
void read_vision_shape(const ConfigReader& r, const char* channels_key, const char* activation,
                       VisionConfig& config);
// Everything beside vision_config, which is Qwen2.5-VL's as well.
void read_language(const ConfigReader& root, Config& config);

// From config.json in its nested form. UserError(ExitCode::model) names the key, what was found
// and what was expected.
Config read_config(const nlohmann::json& config);

}  // namespace medvqa::models::qwen2_vl
