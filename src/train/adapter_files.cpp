#include "medvqa/train/adapter_files.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "medvqa/io/classifier_head.h"

namespace medvqa::train {

std::vector<float> host_values(const nn::HostTensor& t) {
  std::vector<float> values;
  dispatch_float(t.dtype, [&]<class T>() {
    values.resize(t.bytes.size() / sizeof(T));
    for (std::size_t i = 0; i < values.size(); ++i) {
      T v;
      std::memcpy(&v, t.bytes.data() + i * sizeof(T), sizeof(T));
      values[i] = static_cast<float>(static_cast<Accumulator<T>>(v));
    }
  });
  return values;
}

namespace {

std::vector<float> device_values(ops::Backend& backend, const Tensor& t) {
  std::vector<float> values(static_cast<std::size_t>(t.elements()));
  backend.download(t, values.data(), values.size() * sizeof(float));
  return values;
}

void upload_matrix(ops::Backend& backend, const nn::HostTensor& stored, const Tensor& target,
                   const std::string& name) {
  const std::vector<std::int64_t> shape{target.dim(0), target.dim(1)};
  if (stored.shape != shape) {
    throw UserError(ExitCode::model,
                    fmt::format("adapter: {} is [{}], expected {}; the adapter belongs to another "
                                "model",
                                name, fmt::join(stored.shape, ", "), target.shape.str()));
  }
  const std::vector<float> values = host_values(stored);
  backend.upload(values.data(), values.size() * sizeof(float), target);
}

void load_head(ops::Backend& backend, const std::filesystem::path& folder,
               const AdaptedModel& model) {
  const nn::Parameter& head = model.head();
  if (!std::filesystem::exists(folder / io::kHeadFile)) return;
  if (!head.grad) {
    spdlog::warn("{}: left aside, for task is not classification; the model's own head is taken",
                 (folder / io::kHeadFile).string());
    return;
  }
  const std::vector<float> values = read_head(folder, model.head_rows(), head.value.dim(1));
  backend.upload(values.data(), values.size() * sizeof(float), head.value);
}

}  // namespace

std::vector<float> read_head(const std::filesystem::path& folder,
                             std::span<const std::int32_t> tokens, std::int64_t channels) {
  const auto stored = io::read_classifier_head(folder);
  const std::string path = (folder / io::kHeadFile).string();
  if (!stored) throw UserError(ExitCode::model, path + ": missing");
  const std::vector<std::int64_t> expected(tokens.begin(), tokens.end());
  if (stored->token_ids != expected) {
    throw UserError(
        ExitCode::model,
        fmt::format("{}: its rows are of the tokens [{}], expected [{}]; set "
                    "classification.classes to the classes it was trained with, in "
                    "their order, or remove the file to start from the model's head",
                    path, fmt::join(stored->token_ids, ", "), fmt::join(expected, ", ")));
  }
  if (stored->weight.shape[1] != channels) {
    throw UserError(ExitCode::model, fmt::format("{}: head.weight has {} channels, expected {}; "
                                                 "the head belongs to another model",
                                                 path, stored->weight.shape[1], channels));
  }
  return host_values(stored->weight);
}

void load_adapter(ops::Backend& backend, const io::PeftAdapter& adapter, AdaptedModel& model) {
  std::set<std::string> known;
  for (const auto& m : model.modules()) {
    known.insert(m->name);
    const auto found = adapter.modules().find(m->name);
    if (found == adapter.modules().end()) {
      throw UserError(ExitCode::model,
                      fmt::format("{}: no matrices for the linear {}; the adapter belongs to "
                                  "another model",
                                  adapter.path().string(), m->name));
    }
    const io::AdapterModule& stored = found->second;
    upload_matrix(backend, stored.a, m->a.value, m->name + ".lora_A");
    upload_matrix(backend, stored.b, m->b.value, m->name + ".lora_B");
  }
  for (const auto& module : adapter.modules()) {
    if (known.contains(module.first)) continue;
    throw UserError(ExitCode::model,
                    fmt::format("{}: the model has no linear {}; the adapter belongs to another "
                                "model",
                                adapter.path().string(), module.first));
  }
  load_head(backend, adapter.path(), model);
}

std::vector<std::string> save_adapter(ops::Backend& backend, const AdaptedModel& model,
                                      const std::filesystem::path& folder,
                                      const AdapterSummary& summary) {
  std::vector<std::vector<float>> values;
  io::AdapterToWrite w;
  io::LinearSizes expected;
  values.reserve(2 * model.modules().size());
  for (const auto& m : model.modules()) {
    io::AdapterMatrices matrices;
    matrices.module = m->name;
    matrices.in = m->in;
    matrices.out = m->out;
    matrices.a = values.emplace_back(device_values(backend, m->a.value));
    matrices.b = values.emplace_back(device_values(backend, m->b.value));
    w.modules.push_back(matrices);
    expected[m->name] = {m->out, m->in};
  }
  const io::NameStyle style = io::name_style_of(summary.model_type);
  w.settings = summary.settings;
  w.name_style = style;
  w.card = summary.card;
  w.base_folder = summary.base_folder;
  std::vector<float> head;
  if (summary.classes) {
    head = device_values(backend, model.head().value);
    w.add_files = [&](const std::filesystem::path& aside) {
      io::write_classifier_head(aside, summary.classes->labels, summary.classes->texts,
                                model.head_rows(), head);
    };
  }
  io::write_peft_adapter(folder, w);
  if (summary.classes) {
    const auto back = read_head(folder, model.head_rows(), model.head().value.dim(1));
    MEDVQA_CHECK(back == head, "the written head is not the trained one");
  }
  return io::prove_peft_adapter(folder, style, expected).zero_b;
}

double effect_on_logits(ops::Backend& backend, Arenas& arenas, const AdaptedModel& model,
                        const MicroBatch& batch) {
  PassOptions options;
  options.training = false;
  options.want_logits = true;
  const std::vector<float> with = run_pass(backend, arenas, model, batch, options).logits;
  std::vector<std::vector<float>> kept;
  for (const auto& m : model.modules()) {
    kept.push_back(device_values(backend, m->b.value));
    backend.fill(m->b.value, 0);
  }
  const std::vector<float> without = run_pass(backend, arenas, model, batch, options).logits;
  for (std::size_t i = 0; i < kept.size(); ++i) {
    const Tensor& b = model.modules()[i]->b.value;
    backend.upload(kept[i].data(), kept[i].size() * sizeof(float), b);
  }
  double largest = 0;
  for (std::size_t i = 0; i < with.size(); ++i) {
    largest = std::max(largest, std::abs(static_cast<double>(with[i]) - without[i]));
  }
  return largest;
}

io::ModelCard model_card(const Config& config, const ModelInputs& model, std::int64_t steps,
                         const std::optional<Evaluation>& evaluation) {
  const TrainConfig& t = config.train;
  io::ModelCard card;
  card.title = config.output.filename().string();
  card.licence = io::find_licence(model.folder, model.config, model.adapter.base_model);
  if (!model.config.contains("vision_config")) {
    card.pipeline_tag = "text-generation";
    card.tags = {"lora", "medical"};
  }
  card.recipe = {
      {"LoRA", fmt::format("r {}, alpha {}, dropout {}{}", model.adapter.r, model.adapter.alpha,
                           model.adapter.dropout, model.adapter.rslora ? ", rsLoRA" : "")},
      {"Optimizer", fmt::format("{}, learning rate {}, weight decay {}, clipped at {}",
                                t.eight_bit ? "8-bit AdamW" : "AdamW", t.learning_rate,
                                t.weight_decay, t.max_grad_norm)},
      {"Batch",
       fmt::format("{} samples x {} micro-batches", t.batch_size, t.gradient_accumulation)},
      {"Optimizer steps", std::to_string(steps)},
      {"Compute type", std::string(medvqa::name_of(model.settings.compute))},
      {"Seed", std::to_string(t.seed)},
  };
  for (const data::Source& s : config.data.train) {
    if (!card.data.empty()) card.data += ", ";
    card.data += s.format + " (" + s.path.filename().string() + ")";
  }
  if (evaluation) {
    for (const NamedScore& score : named_scores(*evaluation)) {
      card.scores.emplace_back(score.title, fmt::format("{:.4f}", score.value));
    }
  }
  if (config.data.classes) {
    card.pipeline_tag = "text-classification";
    card.tags = {"lora", "medical", "text-classification"};
    card.recipe.emplace_back("Head",
                             fmt::format("trimmed to {} classes and trained, {}",
                                         config.data.classes->labels.size(), io::kHeadFile));
  }
  return card;
}

}  // namespace medvqa::train
