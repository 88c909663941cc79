#include "medvqa/train/config_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "medvqa/core/error.h"

namespace medvqa::train {

namespace {

constexpr double kMaxCount = 1e9;

using K = KeyKind;

// clang-format off
const std::vector<ConfigKey> kKeys{
  {"task", K::choice, "\"vqa\"", false, 0, 0, {"vqa", "text", "classification"},
   "vqa, text (causal language modelling on an answer) or classification (of texts)"},
  {"device", K::text, "\"auto\"", false, 0, 0, {}, "auto, cpu, cuda or cuda:N"},
  {"model.path", K::path, "", false, 0, 0, {},
   "Hugging Face folder, or a Hub id in the local Hugging Face cache"},
  {"model.quantization", K::choice, "\"auto\"", false, 0, 0, {"auto", "nf4", "none"},
   "auto: as the files are; nf4: quantise the blocks' linears on load"},
  {"model.double_quant", K::boolean, "true", false, 0, 0, {},
   "nested absmax for nf4 quantised on load"},
  {"model.compute", K::choice, "\"auto\"", false, 0, 0, {"auto", "f32", "bf16", "f16"},
   "type of weights and activations between operations"},
  {"model.vision_features", K::choice, "\"block_input\"", false, 0, 0,
   {"block_input", "block_output"}, "mllama's intermediate features"},
  {"lora.r", K::integer, "16", false, 1, 4096, {}, "rank of the adapters"},
  {"lora.alpha", K::number, "16", false, 0, 1e6, {}, "scaling is alpha / r"},
  {"lora.dropout", K::number, "0.0", false, 0, 0.99, {}, "on the input of A"},
  {"lora.rslora", K::boolean, "false", false, 0, 0, {}, "scaling is alpha / sqrt(r)"},
  {"lora.vision", K::boolean, "true", false, 0, 0, {}, "adapt the vision tower"},
  {"lora.language", K::boolean, "true", false, 0, 0, {}, "adapt the language model"},
  {"lora.attention", K::boolean, "true", false, 0, 0, {}, "adapt attention linears"},
  {"lora.mlp", K::boolean, "true", false, 0, 0, {}, "adapt feed-forward linears"},
  {"lora.targets", K::text, "null", true, 0, 0, {},
   "regex that must match a linear's full name; replaces the four switches"},
  {"lora.init_from", K::path, "null", true, 0, 0, {}, "PEFT adapter folder to start from"},
  {"data.train", K::sources, "", false, 0, 0, {}, "where the training samples are"},
  {"data.validation", K::validation, R"({"fraction": 0.1, "by": "image"})", true, 0, 0, {},
   "samples held out by image, or sources like data.train, or null"},
  {"data.prompt", K::text, "\"{question}\"", false, 0, 0, {},
   "the user's text; {column} takes any column of the record; classification: the whole text"},
  {"data.system", K::text, "null", true, 0, 0, {}, "system message; null: the model's default"},
  {"data.label", K::text, "\"label\"", false, 0, 0, {}, "classification: column of the class"},
  {"data.max_length", K::integer, "2048", false, 1, kMaxCount, {}, "tokens of one sample"},
  {"data.too_long", K::choice, "\"error\"", false, 0, 0, {"error", "drop"},
   "what to do with a longer sample; image tokens are never cut"},
  {"data.loss_on", K::choice, "\"answer\"", false, 0, 0, {"answer", "all"},
   "answer and end-of-turn, or everything but placeholders"},
  {"data.image_first", K::boolean, "true", false, 0, 0, {}, "image before the question"},
  {"data.image.min_pixels", K::integer, "null", true, 1, kMaxCount, {},
   "null: the model's processor file"},
  {"data.image.max_pixels", K::integer, "null", true, 1, kMaxCount, {},
   "null: the model's processor file"},
  {"data.packing", K::boolean, "true", false, 0, 0, {},
   "join the samples of a micro-batch without padding"},
  {"data.shuffle", K::boolean, "true", false, 0, 0, {}, "torch.randperm(seed + epoch)"},
  {"data.group_by_length", K::boolean, "false", false, 0, 0, {},
   "samples of like length in one optimizer step, as transformers' group_by_length"},
  {"data.threads", K::integer, "1", false, 1, 256, {}, "image preparation threads"},
  {"train.batch_size", K::integer, "2", false, 1, 65536, {}, "samples per micro-batch"},
  {"train.gradient_accumulation", K::integer, "4", false, 1, 65536, {},
   "micro-batches per optimizer step"},
  {"train.epochs", K::integer, "1", false, 1, 1e6, {}, "passes over the training samples"},
  {"train.max_steps", K::integer, "null", true, 1, kMaxCount, {}, "wins over epochs"},
  {"train.learning_rate", K::number, "2e-4", false, 0, 10, {}, "the peak"},
  {"train.schedule", K::choice, "\"linear\"", false, 0, 0, {"linear", "cosine", "constant"},
   "after the warmup"},
  {"train.warmup_steps", K::integer, "5", false, 0, kMaxCount, {}, "from zero to the peak"},
  {"train.weight_decay", K::number, "0.01", false, 0, 10, {}, "decoupled"},
  {"train.max_grad_norm", K::number, "1.0", false, 0, 1e9, {}, "0: no clipping"},
  {"train.optimizer", K::choice, "\"adamw8bit\"", false, 0, 0, {"adamw8bit", "adamw"},
   "8-bit or f32 states"},
  {"train.recompute", K::choice, "\"auto\"", false, 0, 0,
   {"auto", "all", "attention_saved", "none"}, "what the backward computes again"},
  {"train.offload", K::choice, "\"auto\"", false, 0, 0, {"auto", "none", "all"},
   "embedding table and recompute points in host memory; auto: on a GPU, as the plan says"},
  {"train.seed", K::integer, "3407", false, 0, 4294967295.0, {},
   "of data order, adapters and dropout"},
  {"train.log_every", K::integer, "1", false, 1, kMaxCount, {}, "steps"},
  {"train.eval_every", K::integer, "null", true, 1, kMaxCount, {},
   "steps; null: once, at the end"},
  {"train.save_every", K::integer, "null", true, 1, kMaxCount, {},
   "steps; null: once, at the end"},
  {"train.keep", K::integer, "2", false, 2, 1e6, {}, "checkpoints kept beside the best"},
  {"classification.classes", K::texts, R"({"0": " No", "1": " Yes"})", false, 0, 0, {},
   "label -> text whose single token stands for the class"},
  {"output", K::path, "", false, 0, 0, {}, "folder of the run"},
};
// clang-format on

std::size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row.back();
}

bool is_source_list(const nlohmann::ordered_json& v) {
  if (!v.is_array() || v.empty()) return false;
  return std::all_of(v.begin(), v.end(), [](const nlohmann::ordered_json& s) {
    if (!s.is_object() || !s.contains("format") || !s.contains("path")) return false;
    return std::all_of(s.begin(), s.end(),
                       [](const nlohmann::ordered_json& x) { return x.is_string(); });
  });
}

bool is_validation(const nlohmann::ordered_json& v) {
  if (is_source_list(v)) return true;
  if (!v.is_object() || !v.contains("fraction")) return false;
  for (const auto& item : v.items()) {
    if (item.key() != "fraction" && item.key() != "by") return false;
  }
  const nlohmann::ordered_json& f = v.at("fraction");
  return f.is_number() && f.get<double>() >= 0 && f.get<double>() < 1 &&
         v.value("by", "image") == "image";
}

std::string expected_of(const ConfigKey& key) {
  const std::string null = key.nullable ? " or null" : "";
  switch (key.kind) {
    case KeyKind::boolean:
      return "true or false" + null;
    case KeyKind::integer:
      return fmt::format("an integer from {} to {}{}", key.lowest, key.highest, null);
    case KeyKind::number:
      return fmt::format("a number from {} to {}{}", key.lowest, key.highest, null);
    case KeyKind::text:
    case KeyKind::path:
      return "a string" + null;
    case KeyKind::choice:
      return fmt::format("one of {}{}", fmt::join(key.choices, ", "), null);
    case KeyKind::sources:
      return R"(a list of {"format": ..., "path": ..., "split": ...})";
    case KeyKind::validation:
      return R"({"fraction": 0 to 1, "by": "image"}, a list like data.train, or null)";
    case KeyKind::texts:
      return "an object of strings";
  }
  return "";
}

bool fits(const ConfigKey& key, const nlohmann::ordered_json& v) {
  switch (key.kind) {
    case KeyKind::boolean:
      return v.is_boolean();
    case KeyKind::integer:
      return v.is_number_integer() && v.get<double>() >= key.lowest &&
             v.get<double>() <= key.highest;
    case KeyKind::number:
      return v.is_number() && v.get<double>() >= key.lowest && v.get<double>() <= key.highest;
    case KeyKind::text:
    case KeyKind::path:
      return v.is_string() && !v.get<std::string>().empty();
    case KeyKind::choice:
      return v.is_string() && std::any_of(key.choices.begin(), key.choices.end(),
                                          [&](const char* c) { return v == c; });
    case KeyKind::sources:
      return is_source_list(v);
    case KeyKind::validation:
      return is_validation(v);
    case KeyKind::texts:
      return v.is_object() && !v.empty() &&
             std::all_of(v.begin(), v.end(),
                         [](const nlohmann::ordered_json& x) { return x.is_string(); });
  }
  return false;
}

}  // namespace

std::span<const ConfigKey> config_keys() {
  return kKeys;
}

const ConfigKey* find_key(const std::string& path) {
  const auto found =
      std::find_if(kKeys.begin(), kKeys.end(), [&](const ConfigKey& k) { return path == k.path; });
  return found == kKeys.end() ? nullptr : &*found;
}

std::string nearest_key(const std::string& path) {
  // People forget or mistake the section, and shorten the name: both count less than a wrong
  // letter.
  const auto last = [](const std::string& p) { return p.substr(p.rfind('.') + 1); };
  const auto initials = [](const std::string& name) {
    std::string s;
    for (std::size_t i = 0; i < name.size(); ++i) {
      if (i == 0 || name[i - 1] == '_') s += name[i];
    }
    return s;
  };
  const auto distance = [&](const std::string& known) {
    if (last(path) == initials(last(known))) return std::size_t{0};
    return edit_distance(path, known) + edit_distance(last(path), last(known));
  };
  const auto nearer = [&](const ConfigKey& a, const ConfigKey& b) {
    return distance(a.path) < distance(b.path);
  };
  return std::min_element(kKeys.begin(), kKeys.end(), nearer)->path;
}

void check_value(const ConfigKey& key, const nlohmann::ordered_json& value,
                 const std::string& where) {
  if (value.is_null() ? key.nullable : fits(key, value)) return;
  throw UserError(ExitCode::config, fmt::format("{}: {} is {}, expected {}", where, key.path,
                                                value.dump(), expected_of(key)));
}

}  // namespace medvqa::train
