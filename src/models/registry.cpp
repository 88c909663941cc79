#include <fmt/format.h>

#include <array>
#include <nlohmann/json.hpp>

#include "medvqa/models/config_reader.h"
#include "medvqa/models/llama/model.h"
#include "medvqa/models/mllama/model.h"
#include "medvqa/models/model.h"
#include "medvqa/models/qwen2_5_vl/vision.h"
#include "medvqa/models/qwen2_vl/model.h"
#include "medvqa/models/upload.h"

namespace medvqa::models {

namespace {

using nlohmann::json;

// What an architecture offers beside its model; see model.h.
struct Architecture {
  const char* type;  // model_type
  std::unique_ptr<Model> (*build)(const json& config, nn::Builder& builder);
  std::vector<std::vector<std::int32_t>> (*positions)(const json& config, const PackedInput& input);
  PackedInput (*largest_sample)(const json& config, std::int64_t tokens, std::int64_t max_pixels);
  std::int64_t (*patch_columns)(const json& config);
};

std::vector<std::vector<std::int32_t>> one_axis(const json&, const PackedInput& input) {
  return {sequential_positions(input)};
}

// Qwen2-VL and what shares everything behind the vision tower with it.
template <auto read_config, class Tower>
constexpr Architecture qwen2_vl_with_tower(const char* type) {
  return {type,
          [](const json& config, nn::Builder& builder) -> std::unique_ptr<Model> {
            const auto c = read_config(config);
            auto tower = std::make_unique<Tower>(builder, "model.visual", c);
            return std::make_unique<qwen2_vl::Qwen2Vl>(c, std::move(tower), builder);
          },
          [](const json& config, const PackedInput& input) {
            return qwen2_vl::positions(read_config(config), input);
          },
          [](const json& config, std::int64_t tokens, std::int64_t max_pixels) {
            return qwen2_vl::largest_sample(read_config(config), tokens, max_pixels);
          },
          [](const json& config) { return read_config(config).vision.patch_columns(); }};
}

constexpr std::array<Architecture, 4> kArchitectures{
    {{"llama",
      [](const json& config, nn::Builder& builder) -> std::unique_ptr<Model> {
        return std::make_unique<llama::Llama>(llama::read_config(config), builder);
      },
      one_axis,
      [](const json&, std::int64_t tokens, std::int64_t) { return llama::largest_sample(tokens); },
      [](const json&) { return std::int64_t{0}; }},
     {"mllama",
      [](const json& config, nn::Builder& builder) -> std::unique_ptr<Model> {
        return std::make_unique<mllama::Mllama>(mllama::read_config(config), builder);
      },
      one_axis,
      [](const json& config, std::int64_t tokens, std::int64_t max_pixels) {
        return mllama::largest_sample(mllama::read_config(config), tokens, max_pixels);
      },
      [](const json& config) { return mllama::read_config(config).vision.patch_columns(); }},
     qwen2_vl_with_tower<qwen2_5_vl::read_config, qwen2_5_vl::VisionTower>("qwen2_5_vl"),
     qwen2_vl_with_tower<qwen2_vl::read_config, qwen2_vl::VisionTower>("qwen2_vl")}};

const Architecture& architecture_of(const json& config) {
  const std::string type = ConfigReader(config, "").text("model_type", "");
  std::string known;
  for (const Architecture& a : kArchitectures) {
    if (type == a.type) return a;
    known += fmt::format("{}\"{}\"", known.empty() ? "" : ", ", a.type);
  }
  throw UserError(
      ExitCode::model,
      fmt::format("config.json: model_type is \"{}\", expected one of {}; this architecture "
                  "is not built in",
                  type, known));
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

}  // namespace

std::unique_ptr<Model> build_model(const json& config, nn::Builder& builder) {
  return architecture_of(config).build(config, builder);
}

std::vector<std::vector<std::int32_t>> token_positions(const json& config,
                                                       const PackedInput& input) {
  return architecture_of(config).positions(config, input);
}

PackedInput largest_input(const json& config, std::int64_t tokens, std::int64_t max_pixels,
                          std::int64_t samples) {
  return repeated(architecture_of(config).largest_sample(config, tokens, max_pixels), samples);
}

std::int64_t patch_columns(const json& config) {
  return architecture_of(config).patch_columns(config);
}

}  // namespace medvqa::models
