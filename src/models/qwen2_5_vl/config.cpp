#include "medvqa/models/qwen2_5_vl/config.h"

#include <nlohmann/json.hpp>

namespace medvqa::models::qwen2_5_vl {

namespace {

void read_windows(const ConfigReader& r, Config& c) {
  const std::int64_t window = r.integer("window_size", 112);
  c.window = window / c.vision.merge_size / c.vision.patch_size;
  if (c.window == 0) {
    r.refuse("window_size", std::to_string(window),
             "at least one merged patch, " +
                 std::to_string(c.vision.merge_size * c.vision.patch_size) + " pixels");
  }
  const char* key = "fullatt_block_indexes";
  const nlohmann::json full =
      r.has(key) ? r.json().at(key) : nlohmann::json::array({7, 15, 23, 31});
  if (!full.is_array()) r.refuse(key, full.dump(), "a list of vision blocks");
  c.windowed.assign(static_cast<std::size_t>(c.vision.depth), true);
  for (const nlohmann::json& block : full) {
    // Blocks that are not there change nothing: the published list stands in shallower models too.
    if (!block.is_number_integer() || block < 0) {
      r.refuse(key, full.dump(), "indices of vision blocks");
    }
    const auto index = block.get<std::size_t>();
    if (index < c.windowed.size()) c.windowed[index] = false;
  }
}

}  // namespace

Config read_config(const nlohmann::json& json) {
  const ConfigReader root(json, "");
  const ConfigReader r = root.section("vision_config");
  Config c;
  c.vision.channels = r.integer("hidden_size", 3584);
  c.vision.feed_forward = r.integer("intermediate_size", 3420);
  qwen2_vl::read_vision_shape(r, "hidden_size", "silu", c.vision);
  read_windows(r, c);
  qwen2_vl::read_language(root, c);
  if (r.integer("out_hidden_size", 3584) != c.text.channels) {
    r.refuse("out_hidden_size", std::to_string(r.integer("out_hidden_size", 3584)),
             "the language model's hidden_size, " + std::to_string(c.text.channels));
  }
  return c;
}

}  // namespace medvqa::models::qwen2_5_vl
