#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "medvqa/data/processor.h"
#include "medvqa/io/json.h"
#include "medvqa/io/model_config.h"
#include "src/train/export_source.h"

namespace medvqa::train {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr float kNever = -1000;  // bias of what is no class

// Under the name that is there; older readers know torch_dtype only, newer ones both.
void set_dtype(json& section, DType dtype, bool must) {
  const char* name = dtype == DType::bf16 ? "bfloat16" : "float16";
  for (const char* key : {"dtype", "torch_dtype"}) {
    if (section.contains(key)) section[key] = name;
  }
  if (must && !section.contains("dtype") && !section.contains("torch_dtype")) {
    section["torch_dtype"] = name;
  }
}

json read_if_there(const fs::path& file) {
  return fs::exists(file) ? io::read_json_file(file, {.code = ExitCode::model}) : json::object();
}

// The token that stands for nothing: a sequence classifier looks at the last one that is another.
// With the end of a text in its place, a text must not end in that.
json pad_token(const fs::path& base, const json& config) {
  const auto first = [](const json& ids) { return ids.is_array() && !ids.empty() ? ids[0] : ids; };
  for (const char* file : {"config.json", "generation_config.json"}) {
    json id = first(read_if_there(base / file).value("pad_token_id", json()));
    if (id.is_number_integer()) return id;
  }
  if (const auto id = data::padding_token(base)) return *id;
  return first(config.at("text_config").value("eos_token_id", json()));
}

// What makes a LlamaForSequenceClassification of the configuration.
void make_classifier(json& config, const ExportSource& source) {
  if (source.config.value("model_type", "") != "llama") {
    throw UserError(
        ExitCode::model,
        fmt::format("{} holds a classification head, which merges into a llama only, "
                    "not a {}; export it with --form adapter",
                    source.adapter.path().string(), source.config.value("model_type", "")));
  }
  config["architectures"] = {"LlamaForSequenceClassification"};
  config["id2label"] = json::object();
  config["label2id"] = json::object();
  const std::vector<std::string>& labels = source.head->labels;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    config["id2label"][std::to_string(i)] = labels[i];
    config["label2id"][labels[i]] = i;
  }
  config["num_labels"] = labels.size();
  config["problem_type"] = "single_label_classification";
  config["pad_token_id"] = pad_token(source.base, source.config);
}

}  // namespace

json merged_config(const ExportSource& source, DType dtype) {
  json config = io::read_json_file(source.base / "config.json", {.code = ExitCode::model});
  config.erase("quantization_config");
  set_dtype(config, dtype, true);
  for (const char* section : {"text_config", "vision_config"}) {
    const auto found = config.find(section);
    if (found != config.end() && found->is_object()) set_dtype(*found, dtype, false);
  }
  if (source.head) make_classifier(config, source);
  return config;
}

void write_full_head(const fs::path& folder, const io::ClassifierHead& head, const json& config) {
  const io::JsonObject text(config.at("text_config"), "config.json", ExitCode::model);
  const std::int64_t rows = text.integer("vocab_size", 1);
  const std::int64_t width = head.weight.shape[1];
  const auto fail = [&](const std::string& problem) {
    throw UserError(ExitCode::model, fmt::format("{}: {}", head.file.path().string(), problem));
  };
  if (width != text.integer("hidden_size", 1)) {
    fail(fmt::format("head.weight has {} columns, the base a width of {}", width,
                     text.integer("hidden_size", 1)));
  }
  for (const std::int64_t id : head.token_ids) {
    if (id >= rows) fail(fmt::format("token {} is none of the base's {}", id, rows));
  }
  io::SafetensorsWriter writer(
      folder / "lm_head.safetensors",
      {{"lm_head.weight", DType::f32, {rows, width}}, {"lm_head.bias", DType::f32, {rows}}},
      {{"format", "pt"}});
  const std::size_t row_bytes = static_cast<std::size_t>(width) * sizeof(float);
  const std::vector<std::byte> zero(row_bytes);
  std::vector<float> bias(static_cast<std::size_t>(rows), kNever);
  for (std::int64_t row = 0; row < rows; ++row) {
    const auto found = std::find(head.token_ids.begin(), head.token_ids.end(), row);
    const auto place = static_cast<std::size_t>(found - head.token_ids.begin());
    const bool is_class = found != head.token_ids.end();
    if (is_class) bias[static_cast<std::size_t>(row)] = 0;
    writer.write("lm_head.weight",
                 is_class ? head.weight.bytes.subspan(place * row_bytes, row_bytes) : zero);
  }
  writer.write("lm_head.bias", std::as_bytes(std::span(bias)));
  writer.commit();
}

}  // namespace medvqa::train
