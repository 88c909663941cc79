#include "medvqa/io/model_config.h"

#include <fmt/format.h>

#include <array>
#include <string>

#include "medvqa/core/error.h"
#include "medvqa/io/json.h"
#include "medvqa/io/tensor_names.h"

namespace medvqa::io {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

// Keys that stay at the top when the flat keys of the language model move into text_config.
constexpr std::array kTopKeys = {"architectures",
                                 "model_type",
                                 "dtype",
                                 "text_config",
                                 "vision_config",
                                 "quantization_config",
                                 "image_token_id",
                                 "image_token_index",
                                 "video_token_id",
                                 "vision_token_id",
                                 "vision_start_token_id",
                                 "vision_end_token_id",
                                 "tie_word_embeddings",
                                 "transformers_version",
                                 "_name_or_path",
                                 "auto_map",
                                 "pad_token_id",
                                 "bos_token_id",
                                 "eos_token_id"};

bool is_top_key(const std::string& key) {
  for (const char* top : kTopKeys) {
    if (key == top) return true;
  }
  return false;
}

void rename_dtype(json& section) {
  const auto found = section.find("torch_dtype");
  if (found == section.end()) return;
  const json value = *found;
  section.erase("torch_dtype");
  if (!section.contains("dtype")) section["dtype"] = value;
}

// rope_theta beside rope_scaling, the older spelling, into rope_parameters.
void gather_rope(json& section, const std::string& where) {
  json rope = json::object();
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const auto found = section.find(key);
    if (found == section.end()) continue;
    if (found->is_object()) {
      rope.update(*found);
    } else if (!found->is_null()) {
      throw UserError(ExitCode::model, fmt::format("{}: \"{}\" must be an object, found {}", where,
                                                   key, describe_json(*found)));
    }
    section.erase(key);
  }
  const auto theta = section.find("rope_theta");
  if (theta != section.end()) {
    if (!rope.contains("rope_theta")) rope["rope_theta"] = *theta;
    section.erase("rope_theta");
  }
  if (rope.empty()) return;
  if (!rope.contains("rope_type")) rope["rope_type"] = rope.value("type", json("default"));
  rope.erase("type");
  if (rope["rope_type"] == "mrope") rope["rope_type"] = "default";
  section["rope_parameters"] = std::move(rope);
}

void normalize_section(json& config, const char* key, const std::string& where) {
  const auto found = config.find(key);
  if (found == config.end()) return;
  const std::string inside = fmt::format("{}: \"{}\"", where, key);
  const JsonObject checked(*found, inside, ExitCode::model);
  rename_dtype(*found);
  gather_rope(*found, inside);
}

void move_text_keys(json& config) {
  json text = config.value("text_config", json::object());
  json top = json::object();
  for (auto& item : config.items()) {
    if (is_top_key(item.key())) {
      top[item.key()] = item.value();
    } else if (!text.contains(item.key())) {
      text[item.key()] = item.value();
    }
  }
  for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id", "dtype"}) {
    if (top.contains(key) && !text.contains(key)) text[key] = top[key];
  }
  top["text_config"] = std::move(text);
  config = std::move(top);
}

// Llama's default is untied, Qwen2-VL's Hub files say it at the top, mllama's in text_config.
bool tied_embeddings(const json& config, const std::string& where) {
  const JsonObject top(config, where, ExitCode::model);
  if (top.has("tie_word_embeddings")) return top.boolean_or("tie_word_embeddings", false);
  return top.object("text_config").boolean_or("tie_word_embeddings", false);
}

}  // namespace

json normalized_config(json config, const std::string& where) {
  const JsonObject top(config, where, ExitCode::model);
  top.string("model_type");
  if (top.has("text_config")) top.object("text_config");
  if (top.has("vision_config")) top.object("vision_config");
  rename_dtype(config);
  move_text_keys(config);
  normalize_section(config, "text_config", where);
  normalize_section(config, "vision_config", where);
  config["tie_word_embeddings"] = tied_embeddings(config, where);
  return config;
}

json read_model_config(const fs::path& folder_or_file) {
  const fs::path file =
      fs::is_directory(folder_or_file) ? folder_or_file / "config.json" : folder_or_file;
  if (!fs::exists(file)) {
    throw UserError(ExitCode::model,
                    fmt::format("{} is missing: a model folder holds config.json as on the Hugging "
                                "Face Hub",
                                file.string()));
  }
  return normalized_config(read_json_file(file, {ExitCode::model}), file.string());
}

}  // namespace medvqa::io
