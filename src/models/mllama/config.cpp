#include "medvqa/models/mllama/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

namespace medvqa::models::mllama {

namespace {

using nlohmann::json;

constexpr std::int64_t kMostTiles = 64;

// Distinct indices of layers, ascending or not; null or missing: `fallback`.
std::vector<std::int64_t> layer_list(const ConfigReader& r, const std::string& key,
                                     std::int64_t layers,
                                     const std::vector<std::int64_t>& fallback) {
  std::vector<std::int64_t> list = fallback;
  if (r.has(key)) {
    list.clear();
    for (const json& item : r.json().at(key)) {
      // -1 stands for what is no index at all.
      list.push_back(item.is_number_integer() ? item.get<std::int64_t>() : -1);
    }
  }
  for (std::size_t i = 0; i < list.size(); ++i) {
    const bool twice = std::find(list.begin(), list.begin() + static_cast<std::ptrdiff_t>(i),
                                 list[i]) != list.begin() + static_cast<std::ptrdiff_t>(i);
    if (list[i] < 0 || list[i] >= layers || twice) {
      r.refuse(key, r.has(key) ? r.json().at(key).dump() : "missing",
               fmt::format("distinct layers from 0 to {}", layers - 1));
    }
  }
  return list;
}

void read_ratios(const ConfigReader& r, VisionConfig& c) {
  const std::string key = "supported_aspect_ratios";
  const std::string expected = fmt::format("pairs of at most {} tiles", c.max_tiles);
  if (r.has(key)) {
    c.ratios.clear();
    for (const json& pair : r.json().at(key)) {
      const bool good = pair.is_array() && pair.size() == 2 && pair[0].is_number_integer() &&
                        pair[1].is_number_integer();
      if (!good) r.refuse(key, r.json().at(key).dump(), expected);
      c.ratios.emplace_back(pair[0].get<std::int64_t>(), pair[1].get<std::int64_t>());
    }
  }
  for (const auto& ratio : c.ratios) {
    const auto fits = [&](std::int64_t n) { return n >= 1 && n <= c.max_tiles; };
    if (!fits(ratio.first) || !fits(ratio.second) || ratio.first * ratio.second > c.max_tiles) {
      r.refuse(key, fmt::format("[{}, {}] among others", ratio.first, ratio.second), expected);
    }
  }
  if (c.ratios.empty()) r.refuse(key, "[]", expected);
}

VisionConfig read_vision(const ConfigReader& r) {
  VisionConfig c;
  c.channels = r.integer("hidden_size", c.channels);
  c.feed_forward = r.integer("intermediate_size", c.feed_forward);
  c.heads = r.integer("attention_heads", r.integer("num_attention_heads", c.heads));
  c.layers = r.integer("num_hidden_layers", c.layers);
  c.global_layers = r.integer("num_global_layers", c.global_layers);
  c.in_channels = r.integer("num_channels", c.in_channels);
  c.patch_size = r.integer("patch_size", c.patch_size);
  c.image_size = r.integer("image_size", c.image_size);
  c.max_tiles = r.integer("max_num_tiles", c.max_tiles);
  c.eps = r.number("norm_eps", 1e-12, 1, c.eps);
  if (c.channels % c.heads != 0) {
    r.refuse("attention_heads", std::to_string(c.heads), "a divisor of hidden_size");
  }
  if (c.image_size % c.patch_size != 0) {
    r.refuse("image_size", std::to_string(c.image_size), "a multiple of patch_size");
  }
  if (c.max_tiles > kMostTiles) {
    r.refuse("max_num_tiles", std::to_string(c.max_tiles), fmt::format("at most {}", kMostTiles));
  }
  if (r.text("hidden_act", "gelu") != "gelu") {
    r.refuse("hidden_act", r.text("hidden_act", ""), "gelu");
  }
  c.feature_layers = layer_list(r, "intermediate_layers_indices", c.layers, c.feature_layers);
  read_ratios(r, c);
  if (r.integer("vision_output_dim", c.out_channels()) != c.out_channels()) {
    r.refuse("vision_output_dim", std::to_string(r.integer("vision_output_dim")),
             fmt::format("{}: hidden_size for the last layer and for each of "
                         "intermediate_layers_indices",
                         c.out_channels()));
  }
  return c;
}

TextConfig read_text(const ConfigReader& r) {
  TextConfig c;
  c.eps = 1e-5;
  read_decoder(r, c);
  r.number("dropout", 0, 0, 0.0);
  c.cross_layers =
      layer_list(r, "cross_attention_layers", c.layers, {3, 8, 13, 18, 23, 28, 33, 38});
  return c;
}

}  // namespace

bool TextConfig::is_cross(std::int64_t layer) const {
  return std::find(cross_layers.begin(), cross_layers.end(), layer) != cross_layers.end();
}

Config read_config(const nlohmann::json& config) {
  const ConfigReader r(config, "");
  Config c;
  c.vision = read_vision(r.section("vision_config"));
  c.text = read_text(r.section("text_config"));
  c.image_token_id = static_cast<std::int32_t>(
      r.integer("image_token_index", r.integer("image_token_id", c.image_token_id)));
  if (c.image_token_id >= c.text.vocabulary + kExtraRows) {
    r.refuse("image_token_index", std::to_string(c.image_token_id),
             fmt::format("an id below vocab_size + {} = {}", kExtraRows,
                         c.text.vocabulary + kExtraRows));
  }
  if (r.boolean("tie_word_embeddings", false)) {
    r.refuse("tie_word_embeddings", "true", "false: the head has fewer rows than the embedding");
  }
  const std::string features = r.text("vision_features", "block_input");
  if (features == "block_output") {
    c.vision.features = VisionFeatures::block_output;
  } else if (features != "block_input") {
    r.refuse("vision_features", "\"" + features + "\"", "\"block_input\" or \"block_output\"");
  }
  return c;
}

}  // namespace medvqa::models::mllama
