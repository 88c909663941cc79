#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "medvqa/models/config_reader.h"
#include "medvqa/models/model.h"
#include "medvqa/models/mrope.h"
#include "medvqa/models/qwen2_vl/model.h"

namespace medvqa::models {

namespace {

[[noreturn]] void refuse_architecture(const std::string& type) {
  throw UserError(ExitCode::model,
                  fmt::format("config.json: model_type is \"{}\", expected \"qwen2_vl\"; this "
                              "architecture is not built in",
                              type));
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
  refuse_architecture(type);
}

std::vector<std::vector<std::int32_t>> token_positions(const nlohmann::json& config,
                                                       const PackedInput& input) {
  const std::string type = type_of(config);
  if (type == "qwen2_vl") {
    const qwen2_vl::Config c = qwen2_vl::read_config(config);
    return mrope_positions(input, c.image_token_id, c.vision.merge_size);
  }
  refuse_architecture(type);
}

}  // namespace medvqa::models
