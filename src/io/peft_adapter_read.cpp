#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "medvqa/io/json.h"
#include "medvqa/io/peft_adapter.h"
#include "medvqa/io/sha256.h"

namespace medvqa::io {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kRoot = "base_model.model.";

// Fields of adapter_config.json that would change the arithmetic if they were set to anything but
// null, false or empty.
constexpr const char* kMustBeUnset[] = {"use_dora",
                                        "use_qalora",
                                        "use_bdlora",
                                        "lora_bias",
                                        "fan_in_fan_out",
                                        "alpha_pattern",
                                        "rank_pattern",
                                        "modules_to_save",
                                        "layer_replication",
                                        "target_parameters",
                                        "trainable_token_indices",
                                        "alora_invocation_tokens",
                                        "kasa_config",
                                        "velora_config",
                                        "monteclora_config",
                                        "arrow_config"};

bool is_unset(const nlohmann::json& value) {
  if (value.is_null()) return true;
  if (value.is_boolean()) return !value.get<bool>();
  if (value.is_structured() || value.is_string()) return value.empty();
  return false;
}

// Splits "…q_proj.lora_A.weight" or "…q_proj.lora_A.default.weight" into module and 'A'.
bool split_key(const std::string& key, std::string& module, char& matrix) {
  for (const char letter : {'A', 'B'}) {
    for (const char* ending : {".weight", ".default.weight"}) {
      const std::string suffix = fmt::format(".lora_{}{}", letter, ending);
      if (key.size() <= suffix.size() || !key.ends_with(suffix)) continue;
      module = key.substr(0, key.size() - suffix.size());
      matrix = letter;
      return true;
    }
  }
  return false;
}

template <class T>
double sum_of_squares(std::span<const std::byte> bytes) {
  double sum = 0;
  for (std::size_t i = 0; i + sizeof(T) <= bytes.size(); i += sizeof(T)) {
    T value;
    std::memcpy(&value, bytes.data() + i, sizeof(T));
    const auto x = static_cast<double>(value);
    sum += x * x;
  }
  return sum;
}

double norm_of(const nn::HostTensor& tensor) {
  return std::sqrt(
      dispatch_float(tensor.dtype, [&]<class T>() { return sum_of_squares<T>(tensor.bytes); }));
}

[[noreturn]] void fail_module(const fs::path& folder, const std::string& name,
                              const std::string& problem) {
  throw UserError(ExitCode::model,
                  fmt::format("{}: module \"{}\" {}", folder.string(), name, problem));
}

const fs::path& existing(const fs::path& file) {
  if (!fs::exists(file)) {
    throw UserError(ExitCode::model,
                    fmt::format("{} is missing: not the folder of a PEFT adapter", file.string()));
  }
  return file;
}

}  // namespace

double AdapterSettings::scaling() const {
  const auto rank = static_cast<double>(r);
  return alpha / (rslora ? std::sqrt(rank) : rank);
}

PeftAdapter::PeftAdapter(const fs::path& folder, NameStyle style)
    : folder_(folder), weights_(existing(folder / "adapter_model.safetensors")) {
  read_settings();
  read_modules(style);
}

void PeftAdapter::fail(const std::string& message) const {
  throw UserError(ExitCode::model, fmt::format("{}: {}", folder_.string(), message));
}

void PeftAdapter::read_settings() {
  const fs::path path = existing(folder_ / "adapter_config.json");
  const nlohmann::json config = read_json_file(path, {ExitCode::model});
  const JsonObject fields(config, path.string(), ExitCode::model);
  const std::string type = fields.string("peft_type");
  if (type != "LORA") fields.fail(fmt::format("peft_type \"{}\"; expected \"LORA\"", type));
  settings_.r = fields.integer("r", 1, 4096);
  settings_.alpha = fields.number("lora_alpha");
  settings_.dropout = fields.number_or("lora_dropout", 0);
  settings_.rslora = fields.boolean_or("use_rslora", false);
  settings_.base_model = fields.string_or("base_model_name_or_path", "");
  if (!std::isfinite(settings_.alpha)) fields.fail("lora_alpha is not finite");
  const std::string bias = fields.string_or("bias", "none");
  if (bias != "none") fields.fail(fmt::format("bias \"{}\"; expected \"none\"", bias));
  for (const char* key : kMustBeUnset) {
    const auto found = config.find(key);
    if (found == config.end() || is_unset(*found)) continue;
    fields.fail(fmt::format("\"{}\" is {}; only plain LoRA without it is supported", key,
                            describe_json(*found)));
  }
}

void PeftAdapter::read_modules(NameStyle style) {
  for (const auto& item : weights_.entries()) {
    const std::string& key = item.first;
    std::string module;
    char matrix = 0;
    if (!key.starts_with(kRoot) || !split_key(key.substr(kRoot.size()), module, matrix)) {
      fail(
          fmt::format("adapter_model.safetensors: \"{}\" is no LoRA matrix; expected "
                      "base_model.model.MODULE.lora_A.weight or .lora_B.weight",
                      key));
    }
    AdapterModule& slot = modules_[canonical_name(style, module)];
    nn::HostTensor& target = matrix == 'A' ? slot.a : slot.b;
    if (!target.shape.empty()) fail(fmt::format("\"{}\" names a matrix that is there twice", key));
    target = weights_.tensor(key);
  }
  if (modules_.empty()) fail("adapter_model.safetensors holds no LoRA matrix");
  for (const auto& item : modules_) check_module(item.first, item.second);
}

void PeftAdapter::check_module(const std::string& name, const AdapterModule& module) const {
  for (const nn::HostTensor* tensor : {&module.a, &module.b}) {
    const char letter = tensor == &module.a ? 'A' : 'B';
    if (tensor->shape.empty()) fail(fmt::format("module \"{}\" has no lora_{}", name, letter));
    if (!is_floating(tensor->dtype) || tensor->dtype == DType::f64) {
      fail(fmt::format("lora_{} of \"{}\" is {}; expected F32, BF16 or F16", letter, name,
                       name_of(tensor->dtype)));
    }
    const std::size_t rank_dim = letter == 'A' ? 0 : 1;
    if (tensor->shape.size() != 2 || tensor->shape[rank_dim] != settings_.r) {
      fail(fmt::format("lora_{} of \"{}\" has shape {}; expected {} for r = {}", letter, name,
                       tensor->shape, letter == 'A' ? "[r, in]" : "[out, r]", settings_.r));
    }
  }
}

AdapterProof check_modules(const PeftAdapter& adapter, const LinearSizes& linears) {
  AdapterProof proof;
  for (const auto& item : adapter.modules()) {
    const auto found = linears.find(item.first);
    if (found == linears.end()) {
      fail_module(adapter.path(), item.first,
                  "is not one of the model; the adapter belongs to another model");
    }
    const std::int64_t out = item.second.b.shape[0];
    const std::int64_t in = item.second.a.shape[1];
    if (std::pair(out, in) != found->second) {
      fail_module(adapter.path(), item.first,
                  fmt::format("is [{}, {}]; the model has [{}, {}]; the adapter belongs to "
                              "another model",
                              out, in, found->second.first, found->second.second));
    }
    const double norm = norm_of(item.second.b);
    if (norm == 0) proof.zero_b.push_back(item.first);
    proof.smallest_b_norm = proof.modules == 0 ? norm : std::min(proof.smallest_b_norm, norm);
    ++proof.modules;
  }
  return proof;
}

AdapterProof prove_peft_adapter(const fs::path& folder, NameStyle style,
                                const LinearSizes& expected) {
  check_manifest(folder);
  const PeftAdapter adapter(folder, style);
  const AdapterProof proof = check_modules(adapter, expected);
  for (const auto& item : expected) {
    if (adapter.modules().contains(item.first)) continue;
    fail_module(folder, item.first, "is missing from the adapter");
  }
  return proof;
}

}  // namespace medvqa::io
