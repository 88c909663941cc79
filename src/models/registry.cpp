#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "medvqa/models/config_reader.h"
#include "medvqa/models/mllama/model.h"
#include "medvqa/models/model.h"
#include "medvqa/models/mrope.h"
#include "medvqa/models/qwen2_vl/model.h"

namespace medvqa::models {

namespace {

[[noreturn]] void refuse_architecture(const std::string& type) {
  throw UserError(ExitCode::model,
                  fmt::format("config.json: model_type is \"{}\", expected \"mllama\" or "
                              "\"qwen2_vl\"; this architecture is not built in",
                              type));
}

// Tokens of a sample that are never an image's: markers, roles, a question and an answer.
constexpr std::int64_t kFewestTextTokens = 32;

PackedInput largest_qwen2_vl(const qwen2_vl::Config& c, std::int64_t tokens,
                             std::int64_t max_pixels) {
  const std::int64_t merge = c.vision.merge_size;
  const std::int64_t side = c.vision.patch_size * merge;
  const std::int64_t budget =
      std::max<std::int64_t>(1, std::min(max_pixels / (side * side), tokens - kFewestTextTokens));
  const auto rows = static_cast<std::int64_t>(std::sqrt(static_cast<double>(budget)));
  const PatchGrid grid{1, rows * merge, budget / rows * merge};
  const std::int64_t image_tokens = grid.patches() / (merge * merge);
  PackedInput input;
  input.ids.assign(static_cast<std::size_t>(image_tokens), c.image_token_id);
  const std::int32_t text = c.image_token_id == 0 ? 1 : 0;
  input.ids.resize(static_cast<std::size_t>(std::max(tokens, image_tokens + 1)), text);
  input.cu_seqlens = {0, static_cast<std::int32_t>(input.ids.size())};
  input.grids = {grid};
  input.patch_rows = grid.patches();
  return input;
}

// The same sample over and over.
PackedInput repeated(const PackedInput& one, std::int64_t samples) {
  PackedInput all = one;
  for (std::int64_t n = 1; n < samples; ++n) {
    all.ids.insert(all.ids.end(), one.ids.begin(), one.ids.end());
    all.cu_seqlens.push_back(static_cast<std::int32_t>(all.ids.size()));
    all.grids.insert(all.grids.end(), one.grids.begin(), one.grids.end());
    all.patch_rows += one.patch_rows;
  }
  return all;
}

std::string type_of(const nlohmann::json& config) {
  return ConfigReader(config, "").text("model_type", "");
}

}  // namespace

std::unique_ptr<Model> build_model(const nlohmann::json& config, nn::Builder& builder) {
  const std::string type = type_of(config);
  if (type == "qwen2_vl") {
    return std::make_unique<qwen2_vl::Qwen2Vl>(qwen2_vl::read_config(config), builder);
  }
  if (type == "mllama") {
    return std::make_unique<mllama::Mllama>(mllama::read_config(config), builder);
  }
  refuse_architecture(type);
}

std::vector<std::vector<std::int32_t>> token_positions(const nlohmann::json& config,
                                                       const PackedInput& input) {
  const std::string type = type_of(config);
  if (type == "qwen2_vl") {
    const qwen2_vl::Config c = qwen2_vl::read_config(config);
    return mrope_positions(input, c.image_token_id, c.vision.merge_size);
  }
  if (type == "mllama") return {mllama::positions(input)};
  refuse_architecture(type);
}

PackedInput largest_input(const nlohmann::json& config, std::int64_t tokens,
                          std::int64_t max_pixels, std::int64_t samples) {
  const std::string type = type_of(config);
  if (type == "qwen2_vl") {
    return repeated(largest_qwen2_vl(qwen2_vl::read_config(config), tokens, max_pixels), samples);
  }
  if (type == "mllama") {
    return repeated(mllama::largest_sample(mllama::read_config(config), tokens, max_pixels),
                    samples);
  }
  refuse_architecture(type);
}

}  // namespace medvqa::models
