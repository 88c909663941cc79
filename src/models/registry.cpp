#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "medvqa/models/config_reader.h"
#include "medvqa/models/model.h"
#include "medvqa/models/qwen2_vl/model.h"

namespace medvqa::models {

std::unique_ptr<Model> build_model(const nlohmann::json& config, nn::Builder& builder) {
  const ConfigReader reader(config, "");
  const std::string type = reader.text("model_type", "");
  if (type == "qwen2_vl") {
    return std::make_unique<qwen2_vl::Qwen2Vl>(qwen2_vl::read_config(config), builder);
  }
  throw UserError(ExitCode::model,
                  fmt::format("config.json: model_type is \"{}\", expected \"qwen2_vl\"; this "
                              "architecture is not built in",
                              type));
}

}  // namespace medvqa::models
