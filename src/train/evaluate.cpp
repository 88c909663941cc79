#include "medvqa/train/evaluate.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "medvqa/train/memory_plan.h"
#include "src/train/objectives.h"

namespace medvqa::train {

namespace {

using Indices = std::vector<std::int64_t>;

std::vector<Indices> batches_in_order(std::size_t examples, std::int64_t batch_size) {
  std::vector<Indices> batches;
  for (std::size_t i = 0; i < examples; ++i) {
    if (i % static_cast<std::size_t>(batch_size) == 0) batches.emplace_back();
    batches.back().push_back(static_cast<std::int64_t>(i));
  }
  return batches;
}

void add_classes(const Evaluation& e, nlohmann::json& j) {
  const scores::Classification& c = *e.classes;
  j["accuracy"] = c.accuracy;
  j["macro_f1"] = c.macro_f1;
  j["confusion"] = c.confusion;
  j["classes"] = e.class_labels;
  for (std::size_t i = 0; i < c.classes.size(); ++i) j["f1"][e.class_labels[i]] = c.classes[i].f1;
}

}  // namespace

std::shared_ptr<const Objective> make_objective(const DataConfig& config) {
  return config.classes ? make_class_objective(*config.classes) : make_token_objective();
}

std::vector<MicroBatch> validation_batches(const DataInputs& data, std::int64_t batch_size) {
  std::vector<MicroBatch> batches;
  for (const Indices& b : batches_in_order(data.validation.examples.size(), batch_size)) {
    batches.push_back(dry_micro_batch(*data.processor, data.validation, b));
  }
  return batches;
}

void run_validation(const Scoring& s, bool want_logits,
                    const std::function<void(const MicroBatch&, const PassResult&)>& use) {
  PassOptions options;
  options.training = false;
  options.want_logits = want_logits;
  data::Prefetcher batches(*s.data.processor, s.data.validation,
                           batches_in_order(s.data.validation.examples.size(), s.batch_size), 1);
  while (std::optional<data::Batch> batch = batches.next()) {
    const MicroBatch m = make_micro_batch(std::move(*batch));
    use(m, run_pass(s.backend, s.arenas, s.model, m, options));
  }
}

void add_evaluation(const DataInputs& data, std::int64_t batch_size, PlannedWork& work) {
  std::vector<MicroBatch> batches = largest(data.objective->scored_batches(data, batch_size));
  auto& passes = data.objective->scores_need_logits() ? work.logits : work.evaluate;
  passes.insert(passes.end(), std::make_move_iterator(batches.begin()),
                std::make_move_iterator(batches.end()));
}

Evaluation evaluate(ops::Backend& backend, Arenas& arenas, const AdaptedModel& model,
                    const DataInputs& data, std::int64_t batch_size) {
  return data.objective->score({backend, arenas, model, data, batch_size});
}

nlohmann::json to_json(const Evaluation& e, std::int64_t step) {
  nlohmann::json j{{"event", "eval"},
                   {"step", step},
                   {"loss", e.loss},
                   {"token_accuracy", e.token_accuracy},
                   {"label_tokens", e.label_tokens},
                   {"samples", e.samples}};
  if (e.classes) {
    add_classes(e, j);
    return j;
  }
  j["yes_no_samples"] = e.yes_no_samples;
  j["yes_no_accuracy"] =
      e.yes_no_samples > 0 ? nlohmann::json(e.yes_no_accuracy) : nlohmann::json();
  return j;
}

std::vector<NamedScore> named_scores(const Evaluation& e) {
  std::vector<NamedScore> named{{"loss", "Validation loss", e.loss}};
  if (e.classes) {
    named.push_back({"accuracy", "Validation accuracy", e.classes->accuracy});
    named.push_back({"macro_f1", "Validation macro F1", e.classes->macro_f1});
    return named;
  }
  named.front().title += " (answer tokens)";
  named.push_back({"token_accuracy", "Validation token accuracy", e.token_accuracy});
  if (e.yes_no_samples > 0) {
    named.push_back(
        {"yes_no_accuracy",
         fmt::format("Validation yes/no accuracy by log-likelihood, n = {}", e.yes_no_samples),
         e.yes_no_accuracy});
  }
  return named;
}

std::vector<std::string> to_lines(const Evaluation& e) {
  if (!e.classes) {
    return {
        fmt::format("held out: loss {:.4f}, token accuracy {:.3f}, yes/no accuracy {:.3f} "
                    "(n = {})",
                    e.loss, e.token_accuracy, e.yes_no_accuracy, e.yes_no_samples)};
  }
  std::vector<std::string> lines{
      fmt::format("held out: loss {:.4f}, accuracy {:.3f}, macro F1 {:.3f} (n = {})", e.loss,
                  e.classes->accuracy, e.classes->macro_f1, e.samples)};
  for (const std::string& line : scores::confusion_table(*e.classes, e.class_labels)) {
    lines.push_back(line);
  }
  return lines;
}

}  // namespace medvqa::train
