// LoRA adapters in the folder format of Hugging Face PEFT.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "medvqa/io/model_files.h"
#include "medvqa/io/safetensors.h"
#include "medvqa/io/tensor_names.h"

namespace medvqa::io {

struct AdapterSettings {
  std::int64_t r = 0;
  double alpha = 0;
  double dropout = 0;
  bool rslora = false;
  std::string base_model;  // name or path; may be empty

  // alpha / r, or alpha / sqrt(r) with rslora.
  double scaling() const;
};

struct AdapterModule {
  nn::HostTensor a;  // [r, in], f32, bf16 or f16
  nn::HostTensor b;  // [out, r]
};

// Reads adapter_config.json and adapter_model.safetensors. Plain LoRA only: DoRA, patterns, biases,
// modules_to_save and whatever else would change the arithmetic are refused by name with
// UserError(ExitCode::model). Keys may have the prefixes of any transformers version.
class PeftAdapter {
 public:
  PeftAdapter(const std::filesystem::path& folder, NameStyle style);

  const AdapterSettings& settings() const { return settings_; }
  // By canonical module name: "model.language_model.layers.0.self_attn.q_proj".
  const std::map<std::string, AdapterModule>& modules() const { return modules_; }
  const std::filesystem::path& path() const { return folder_; }

 private:
  [[noreturn]] void fail(const std::string& message) const;
  void read_settings();
  void read_modules(NameStyle style);
  void check_module(const std::string& name, const AdapterModule& module) const;

  std::filesystem::path folder_;
  AdapterSettings settings_;
  SafetensorsFile weights_;
  std::map<std::string, AdapterModule> modules_;
};

// current: keys as transformers >= 4.52 names modules. legacy: as older ones did.
enum class KeyStyle { current, legacy };

struct AdapterMatrices {
  std::string module;  // canonical
  std::int64_t in = 0;
  std::int64_t out = 0;
  std::span<const float> a;  // [r, in]
  std::span<const float> b;  // [out, r]
};

struct AdapterToWrite {
  AdapterSettings settings;
  std::vector<AdapterMatrices> modules;
  NameStyle name_style = NameStyle::plain;
  KeyStyle key_style = KeyStyle::current;
  ModelCard card;
  // Tokenizer, processor and licence files are copied from the base's folder, what it lacks from
  // the other, the adapter this one is made from. Either may be empty.
  std::filesystem::path base_folder, source_folder;
  // Called with the unfinished folder, to put more files into it (head.safetensors).
  std::function<void(const std::filesystem::path&)> add_files;
};

// adapter_model.safetensors, adapter_config.json, README.md, copies from the base folder and
// manifest.json, appearing at once; a folder of that name is replaced.
void write_peft_adapter(const std::filesystem::path& folder, const AdapterToWrite& adapter);

// README.md of an adapter: base and description from the settings where the card has none.
std::string model_card_text(ModelCard card, const AdapterSettings& settings);

struct AdapterProof {
  std::size_t modules = 0;
  std::vector<std::string> zero_b;  // modules whose B has norm 0: they change nothing
  double smallest_b_norm = 0;
};

// [out, in] of linears by canonical module name.
using LinearSizes = std::map<std::string, std::pair<std::int64_t, std::int64_t>>;

// Every module of the adapter is one of `linears`, with its [out, in]. UserError(ExitCode::model)
// otherwise.
AdapterProof check_modules(const PeftAdapter& adapter, const LinearSizes& linears);

// Reopens a written folder: manifest intact, and its modules are those of `expected`, all of them.
// UserError(ExitCode::model) otherwise.
AdapterProof prove_peft_adapter(const std::filesystem::path& folder, NameStyle style,
                                const LinearSizes& expected);

}  // namespace medvqa::io
