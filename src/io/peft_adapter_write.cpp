#include <fmt/format.h>

#include <set>

#include "medvqa/io/json.h"
#include "medvqa/io/peft_adapter.h"
#include "medvqa/io/sha256.h"

namespace medvqa::io {
namespace fs = std::filesystem;
namespace {

// The matrices' module as its key and target_modules spell it.
std::string spelled(const AdapterToWrite& adapter, const AdapterMatrices& module) {
  return adapter.key_style == KeyStyle::legacy ? hub_name(adapter.name_style, module.module)
                                               : module.module;
}

std::string config_text(const AdapterToWrite& adapter) {
  const AdapterSettings& s = adapter.settings;
  // Under both spellings, of which a model knows one: keys can be mapped when a newer transformers
  // reads them (PEFT's key_mapping), target_modules cannot.
  std::set<std::string> targets;
  for (const AdapterMatrices& module : adapter.modules) {
    targets.insert({module.module, spelled(adapter, module)});
  }
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
    const std::string key = "base_model.model." + spelled(adapter, module);
    tensors.push_back({key + ".lora_A.weight", DType::f32, {r, module.in}});
    tensors.push_back({key + ".lora_B.weight", DType::f32, {module.out, r}});
    bytes.push_back(std::as_bytes(module.a));
    bytes.push_back(std::as_bytes(module.b));
  }
  write_safetensors(path, tensors, bytes, {{"format", "pt"}});
}

}  // namespace

std::string model_card_text(ModelCard card, const AdapterSettings& settings) {
  const std::string of = settings.base_model.empty() ? "a model not named" : settings.base_model;
  if (card.base_model.empty()) card.base_model = settings.base_model;
  if (card.description.empty()) {
    card.description =
        fmt::format("A LoRA adapter (r = {}, alpha = {:g}{}) for {}, trained with medvqa.",
                    settings.r, settings.alpha, settings.rslora ? ", rank-stabilised" : "", of);
  }
  return model_card_text(card);
}

void write_peft_adapter(const fs::path& folder, const AdapterToWrite& adapter) {
  AtomicFolder target(folder);
  write_weights(target.aside() / "adapter_model.safetensors", adapter);
  target.write("adapter_config.json", config_text(adapter));
  target.write("README.md", model_card_text(adapter.card, adapter.settings));
  copy_model_files(target, {adapter.base_folder, adapter.source_folder}, adapter.card.licence);
  if (adapter.add_files) adapter.add_files(target.aside());
  write_manifest(target.aside());
  target.commit();
}

}  // namespace medvqa::io
