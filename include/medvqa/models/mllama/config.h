// The numbers of an mllama model (Llama 3.2 Vision). Grattafiori et al. 2024; keys as in its
// config.json.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <utility>
#include <vector>

#include "medvqa/models/decoder_config.h"

namespace medvqa::models::mllama {

// What the projector reads of the listed layers of the local vision transformer.
enum class VisionFeatures : std::uint8_t {
  block_input,   // as the published weights were trained
  block_output,  // as transformers has it from 4.56 to 5.17
};

struct VisionConfig {
  std::int64_t channels = 1280;
  std::int64_t feed_forward = 5120;
  std::int64_t heads = 16;
  std::int64_t layers = 32;  // local
  std::int64_t global_layers = 8;
  std::int64_t in_channels = 3;
  std::int64_t patch_size = 14;
  std::int64_t image_size = 448;  // of a tile
  std::int64_t max_tiles = 4;
  double eps = 1e-5;
  std::vector<std::int64_t> feature_layers{3, 7, 15, 23, 30};
  // Tiles down and across; the aspect-ratio id is the index + 1.
  std::vector<std::pair<std::int64_t, std::int64_t>> ratios{{1, 1}, {1, 2}, {1, 3}, {1, 4},
                                                            {2, 1}, {2, 2}, {3, 1}, {4, 1}};
  VisionFeatures features = VisionFeatures::block_input;

  std::int64_t head_size() const { return channels / heads; }
  std::int64_t patches_a_side() const { return image_size / patch_size; }
  std::int64_t tile_patches() const { return patches_a_side() * patches_a_side(); }
  std::int64_t tile_tokens() const { return tile_patches() + 1; }  // class token first
  // Every tile is padded to a multiple of eight tokens.
  std::int64_t tile_pads() const { return (8 - tile_tokens() % 8) % 8; }
  std::int64_t patch_columns() const { return in_channels * patch_size * patch_size; }
  std::int64_t out_channels() const {
    return channels * (1 + static_cast<std::int64_t>(feature_layers.size()));
  }
};

// The embedding has kExtraRows more than the head; `layers` counts those of both kinds.
struct TextConfig : DecoderConfig {
  std::vector<std::int64_t> cross_layers;
  bool is_cross(std::int64_t layer) const;
};
inline constexpr std::int64_t kExtraRows = 8;

struct Config {
  VisionConfig vision;
  TextConfig text;
  std::int32_t image_token_id = 128256;
};

// From config.json in its nested form, and "vision_features" beside model_type, which files do not
// have: "block_input" (without it) or "block_output". UserError(ExitCode::model) names the key,
// what was found and what was expected.
Config read_config(const nlohmann::json& config);

}  // namespace medvqa::models::mllama
