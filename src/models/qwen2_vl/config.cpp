#include "medvqa/models/qwen2_vl/config.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "medvqa/models/config_reader.h"

namespace medvqa::models::qwen2_vl {

namespace {

void check_rope_type(const ConfigReader& rope, const std::string& known) {
  const std::string type = rope.text("rope_type", "default");
  if (type != known && type != "default") rope.refuse("rope_type", "\"" + type + "\"", known);
}

TextConfig read_text(const ConfigReader& r) {
  TextConfig c;
  c.rope_theta = 1e6;
  c.eps = 1e-5;
  c.qkv_bias = true;
  read_decoder_shape(r, c);
  if (r.boolean("use_sliding_window", false)) {
    r.refuse("use_sliding_window", "true", "false (sliding windows are not built)");
  }
  const ConfigReader rope = r.section("rope_parameters");
  c.rope_theta = rope.number("rope_theta", 1, 1e12, c.rope_theta);
  check_rope_type(rope, "default");
  if (!rope.has("mrope_section")) rope.refuse("mrope_section", "missing", "three integers");
  const nlohmann::json& sections = rope.json().at("mrope_section");
  std::int64_t sum = 0;
  for (std::size_t i = 0; i < 3 && sections.is_array() && sections.size() == 3; ++i) {
    if (!sections[i].is_number_integer() || sections[i] < 0 || sections[i] > 4096) break;
    c.mrope_section[i] = sections[i].get<std::int64_t>();
    sum += c.mrope_section[i];
  }
  if (sum != c.head_size() / 2) {
    rope.refuse("mrope_section", sections.dump(),
                "three integers with the sum " + std::to_string(c.head_size() / 2));
  }
  return c;
}

}  // namespace

void read_vision_shape(const ConfigReader& r, const char* channels_key, const char* activation,
                       VisionConfig& c) {
  c.depth = r.integer("depth", c.depth);
  c.heads = r.integer("num_heads", c.heads);
  c.in_channels = r.integer("in_channels", c.in_channels);
  c.patch_size = r.integer("patch_size", c.patch_size);
  c.temporal_patch_size = r.integer("temporal_patch_size", c.temporal_patch_size);
  c.merge_size = r.integer("spatial_merge_size", c.merge_size);
  if (c.channels % c.heads != 0 || c.head_size() % 4 != 0) {
    r.refuse("num_heads", std::to_string(c.heads),
             std::string("a divisor of ") + channels_key + " with a head size divisible by 4");
  }
  if (r.text("hidden_act", activation) != activation) {
    r.refuse("hidden_act", r.text("hidden_act", ""), activation);
  }
  if (!r.has("rope_parameters")) return;
  const ConfigReader rope = r.section("rope_parameters");
  c.rope_theta = rope.number("rope_theta", 1, 1e12, c.rope_theta);
  check_rope_type(rope, "axial");
}

void read_language(const ConfigReader& r, Config& c) {
  c.text = read_text(r.section("text_config"));
  c.tied_head = r.boolean("tie_word_embeddings", false);
  c.image_token_id = static_cast<std::int32_t>(r.integer("image_token_id", c.image_token_id));
  if (c.image_token_id >= c.text.vocabulary) {
    r.refuse("image_token_id", std::to_string(c.image_token_id),
             "an id below vocab_size " + std::to_string(c.text.vocabulary));
  }
}

Config read_config(const nlohmann::json& json) {
  const ConfigReader root(json, "");
  const ConfigReader r = root.section("vision_config");
  Config c;
  c.vision.channels = r.integer("embed_dim", c.vision.channels);
  const double ratio = r.number("mlp_ratio", 0.01, 100, 4.0);
  c.vision.feed_forward = static_cast<std::int64_t>(static_cast<double>(c.vision.channels) * ratio);
  read_vision_shape(r, "embed_dim", "quick_gelu", c.vision);
  read_language(root, c);
  return c;
}

}  // namespace medvqa::models::qwen2_vl
