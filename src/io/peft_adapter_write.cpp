#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "medvqa/io/json.h"
#include "medvqa/io/peft_adapter.h"
#include "medvqa/io/sha256.h"

namespace medvqa::io {
namespace fs = std::filesystem;
namespace {

constexpr const char* kNotReported = "not reported";

constexpr const char* kCopied[] = {"tokenizer.json",
                                   "tokenizer.model",
                                   "tokenizer_config.json",
                                   "special_tokens_map.json",
                                   "added_tokens.json",
                                   "vocab.json",
                                   "merges.txt",
                                   "chat_template.json",
                                   "chat_template.jinja",
                                   "preprocessor_config.json",
                                   "video_preprocessor_config.json",
                                   "processor_config.json",
                                   "LICENSE",
                                   "LICENSE.txt",
                                   "LICENSE.md",
                                   "NOTICE",
                                   "NOTICE.txt",
                                   "USE_POLICY.md"};

// The `license:` line at the head of the base model's card.
std::string licence_in_card(const fs::path& base_folder) {
  const fs::path card = base_folder / "README.md";
  if (base_folder.empty() || !fs::is_regular_file(card)) return "";
  const std::string text = read_text_file(card);
  const auto end = text.find("\n---", 3);
  if (!text.starts_with("---") || end == std::string::npos) return "";
  const std::string head = text.substr(0, end);
  const std::string key = "\nlicense:";
  const auto found = head.find(key);
  if (found == std::string::npos) return "";
  std::string value =
      head.substr(found + key.size(), head.find('\n', found + 1) - found - key.size());
  std::erase_if(value, [](unsigned char c) {
    return std::isalnum(c) == 0 && c != '-' && c != '.' && c != '_';
  });
  return value;
}

// A YAML string: JSON's quoting is valid YAML.
std::string quoted(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string table(const std::vector<std::pair<std::string, std::string>>& rows, const char* left,
                  const char* right) {
  if (rows.empty()) return std::string(kNotReported) + "\n";
  std::string text = fmt::format("| {} | {} |\n|---|---|\n", left, right);
  for (const auto& row : rows) {
    text += fmt::format("| {} | {} |\n", row.first, row.second.empty() ? kNotReported : row.second);
  }
  return text;
}

std::string front_matter(const ModelCard& card, const AdapterSettings& settings) {
  std::string text = "---\nlibrary_name: peft\n";
  if (!settings.base_model.empty()) {
    text += fmt::format("base_model: {}\n", quoted(settings.base_model));
  }
  if (!card.pipeline_tag.empty()) text += fmt::format("pipeline_tag: {}\n", card.pipeline_tag);
  if (!card.licence.empty()) text += fmt::format("license: {}\n", card.licence);
  text += "tags:\n";
  for (const std::string& tag : card.tags) text += fmt::format("- {}\n", quoted(tag));
  return text + "---\n\n";
}

std::string config_text(const AdapterToWrite& adapter) {
  const AdapterSettings& s = adapter.settings;
  std::vector<std::string> targets;
  for (const AdapterMatrices& module : adapter.modules) {
    targets.push_back(adapter.key_style == KeyStyle::legacy
                          ? hub_name(adapter.name_style, module.module)
                          : module.module);
  }
  std::sort(targets.begin(), targets.end());
  nlohmann::json config;
  config["alpha_pattern"] = nlohmann::json::object();
  config["auto_mapping"] = nullptr;
  config["base_model_name_or_path"] = s.base_model;
  config["bias"] = "none";
  config["fan_in_fan_out"] = false;
  config["inference_mode"] = true;
  config["init_lora_weights"] = true;
  config["layers_pattern"] = nullptr;
  config["layers_to_transform"] = nullptr;
  config["loftq_config"] = nlohmann::json::object();
  // PEFT declares an integer; a whole number is written as one.
  const auto whole = static_cast<std::int64_t>(s.alpha);
  config["lora_alpha"] =
      static_cast<double>(whole) == s.alpha ? nlohmann::json(whole) : nlohmann::json(s.alpha);
  config["lora_dropout"] = s.dropout;
  config["megatron_config"] = nullptr;
  config["megatron_core"] = "megatron.core";
  config["modules_to_save"] = nullptr;
  config["peft_type"] = "LORA";
  config["r"] = s.r;
  config["rank_pattern"] = nlohmann::json::object();
  config["revision"] = nullptr;
  config["target_modules"] = targets;
  config["task_type"] = "CAUSAL_LM";
  config["use_dora"] = false;
  config["use_rslora"] = s.rslora;
  return config.dump(2) + "\n";
}

void write_weights(const fs::path& path, const AdapterToWrite& adapter) {
  const std::int64_t r = adapter.settings.r;
  std::vector<TensorSpec> tensors;
  std::vector<std::span<const std::byte>> bytes;
  for (const AdapterMatrices& module : adapter.modules) {
    const std::string name = adapter.key_style == KeyStyle::legacy
                                 ? hub_name(adapter.name_style, module.module)
                                 : module.module;
    const std::string key = "base_model.model." + name;
    tensors.push_back({key + ".lora_A.weight", DType::f32, {r, module.in}});
    tensors.push_back({key + ".lora_B.weight", DType::f32, {module.out, r}});
    bytes.push_back(std::as_bytes(module.a));
    bytes.push_back(std::as_bytes(module.b));
  }
  write_safetensors(path, tensors, bytes, {{"format", "pt"}});
}

}  // namespace

std::string_view medical_disclaimer() {
  return "For research and education only. Not validated for clinical use. Every output needs "
         "review by a qualified physician.";
}

std::string model_card_text(const ModelCard& card, const AdapterSettings& settings) {
  const auto or_not = [](const std::string& text) { return text.empty() ? kNotReported : text; };
  std::string text = front_matter(card, settings);
  text += fmt::format("# {}\n\n", card.title.empty() ? "LoRA adapter" : card.title);
  text += fmt::format("> **{}**\n\n", medical_disclaimer());
  text += fmt::format("A LoRA adapter (r = {}, alpha = {:g}{}) for {}, trained with medvqa.\n\n",
                      settings.r, settings.alpha, settings.rslora ? ", rank-stabilised" : "",
                      or_not(settings.base_model));
  if (card.licence.starts_with("llama")) text += "Built with Llama.\n\n";
  text += "## Recipe\n\n" + table(card.recipe, "setting", "value");
  text += "\n## Data\n\n" + std::string(or_not(card.data)) + "\n";
  text += "\n## Scores\n\n" + table(card.scores, "metric", "value");
  text += "\n## Limits\n\n" + std::string(or_not(card.limits)) + "\n";
  text += fmt::format("\n## Licence\n\n{}\n", or_not(card.licence));
  return text;
}

void write_peft_adapter(const fs::path& folder, const AdapterToWrite& adapter) {
  AtomicFolder target(folder);
  write_weights(target.aside() / "adapter_model.safetensors", adapter);
  target.write("adapter_config.json", config_text(adapter));
  ModelCard card = adapter.card;
  if (card.licence.empty()) card.licence = licence_in_card(adapter.base_folder);
  target.write("README.md", model_card_text(card, adapter.settings));
  for (const char* name : kCopied) {
    const fs::path file = adapter.base_folder / name;
    if (!adapter.base_folder.empty() && fs::is_regular_file(file)) target.copy_in(file);
  }
  if (adapter.add_files) adapter.add_files(target.aside());
  write_manifest(target.aside());
  target.commit();
}

}  // namespace medvqa::io
