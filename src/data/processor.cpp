#include "medvqa/data/processor.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <span>

#include "medvqa/core/error.h"
#include "medvqa/io/json.h"
#include "src/data/class_processor.h"
#include "src/data/processor_llama.h"
#include "src/data/processor_mllama.h"
#include "src/data/processor_qwen2_vl.h"
#include "src/data/qwen2_vl_image_config.h"

namespace medvqa::data {

namespace {

// Qwen2.5-VL's pictures, words and template are Qwen2-VL's.
bool is_qwen2_vl(const std::string& type) {
  return type == "qwen2_vl" || type == "qwen2_5_vl";
}

}  // namespace

std::int64_t Example::label_count() const {
  if (class_index) return 1;
  if (labels.empty()) return 0;
  const auto rest = std::span(labels).subspan(1);
  return std::count_if(rest.begin(), rest.end(), [](std::int32_t l) { return l != kNoLabel; });
}

std::unique_ptr<Processor> make_processor(const std::filesystem::path& model_folder,
                                          const nlohmann::json& config,
                                          const ProcessorOptions& options) {
  const io::JsonObject root(config, (model_folder / "config.json").string(), ExitCode::model);
  const std::string type = root.string("model_type");
  if (options.classes) return make_class_processor(model_folder, config, options);
  if (is_qwen2_vl(type)) return make_qwen2_vl_processor(model_folder, config, options);
  if (type == "mllama") return make_mllama_processor(model_folder, config, options);
  if (type == "llama") return make_llama_processor(model_folder, config, options);
  root.fail(
      fmt::format("\"model_type\" is \"{}\", expected \"llama\", \"mllama\", \"qwen2_vl\" or "
                  "\"qwen2_5_vl\"; this architecture is not built in",
                  type));
}

std::int64_t max_image_pixels(const std::filesystem::path& model_folder,
                              const nlohmann::json& config, const ProcessorOptions& options) {
  const std::string type = config.value("model_type", "");
  if (type == "mllama") {
    // Of what does not fit, the plan says more than the processor's own complaint.
    const MllamaImageConfig image = read_mllama_image_config(model_folder, config, {});
    const std::int64_t most = std::int64_t{image.max_tiles} * image.tile_size * image.tile_size;
    return std::min(most, options.max_pixels.value_or(most));
  }
  // llama has no pictures; build_model refuses other architectures with more to say.
  if (!is_qwen2_vl(type)) return 0;
  return read_qwen2_vl_image_config(model_folder, options).max_pixels;
}

std::optional<std::int32_t> padding_token(const std::filesystem::path& model_folder) {
  const auto settings_file = model_folder / "tokenizer_config.json";
  const bool has_tokenizer = std::filesystem::exists(model_folder / "tokenizer.json") ||
                             std::filesystem::exists(model_folder / "tokenizer.model");
  if (!has_tokenizer || !std::filesystem::exists(settings_file)) return std::nullopt;
  const auto settings = io::read_json_file(settings_file, {.code = ExitCode::model});
  const Tokenizer tokenizer = Tokenizer::load_folder(model_folder);
  for (const char* name : {"pad_token", "unk_token"}) {
    nlohmann::json token = settings.value(name, nlohmann::json());
    if (token.is_object()) token = token.value("content", nlohmann::json());
    if (!token.is_string()) continue;
    if (const auto id = tokenizer.token_id(token.get<std::string>())) return id;
  }
  return std::nullopt;
}

}  // namespace medvqa::data
