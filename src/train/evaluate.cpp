#include "medvqa/train/evaluate.h"

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>

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

std::string lower(std::string s) {
  std::transform(s.begin(), s.end(), s.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return s;
}

// The answer that would be wrong, written the way this record writes; nothing if not yes or no.
std::optional<std::string> opposite(const std::string& answer) {
  const std::string a = lower(answer);
  if (a != "yes" && a != "no") return std::nullopt;
  std::string other = a == "yes" ? "no" : "yes";
  if (std::isupper(static_cast<unsigned char>(answer[0])) != 0) {
    other[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(other[0])));
  }
  return other;
}

// Per sample of the batch, the sum of its rows' negative log likelihoods.
std::vector<double> nll_by_sample(const MicroBatch& batch, const PassResult& result) {
  std::vector<double> sums(static_cast<std::size_t>(batch.input.samples()), 0.0);
  std::size_t sample = 0;
  for (std::size_t r = 0; r < result.nll.size(); ++r) {
    while (batch.logit_rows[r] >= batch.input.cu_seqlens[sample + 1]) ++sample;
    sums[sample] += static_cast<double>(result.nll[r]);
  }
  return sums;
}

// The right and the wrong answer of one yes/no sample, as one batch of two.
std::optional<data::Dataset> contrast(const DataInputs& data, std::size_t i) {
  const data::Record& record = data.validation_records[i];
  const std::optional<std::string> wrong = opposite(record.answer);
  if (!wrong) return std::nullopt;
  data::Dataset pair;
  pair.examples = {data.validation.examples[i], data.processor->prepare(record, *wrong)};
  return pair;
}

MicroBatch loaded(const data::Processor& processor, const data::Dataset& dataset,
                  const Indices& indices) {
  std::vector<const data::Example*> examples;
  for (const std::int64_t i : indices) {
    examples.push_back(&dataset.examples.at(static_cast<std::size_t>(i)));
  }
  return make_micro_batch(data::pack(processor, examples, true));
}

}  // namespace

std::vector<MicroBatch> evaluation_batches(const DataInputs& data, std::int64_t batch_size) {
  std::vector<MicroBatch> batches;
  for (const Indices& b : batches_in_order(data.validation.examples.size(), batch_size)) {
    batches.push_back(dry_micro_batch(*data.processor, data.validation, b));
  }
  for (std::size_t i = 0; i < data.validation.examples.size(); ++i) {
    if (const auto pair = contrast(data, i)) {
      batches.push_back(dry_micro_batch(*data.processor, *pair, {0, 1}));
    }
  }
  return batches;
}

Evaluation evaluate(ops::Backend& backend, Arenas& arenas, const AdaptedModel& model,
                    const DataInputs& data, std::int64_t batch_size) {
  PassOptions options;
  options.training = false;
  Evaluation e;
  e.samples = static_cast<std::int64_t>(data.validation.examples.size());
  double nll = 0;
  std::int64_t correct = 0;
  data::Prefetcher batches(*data.processor, data.validation,
                           batches_in_order(data.validation.examples.size(), batch_size), 1);
  while (std::optional<data::Batch> batch = batches.next()) {
    const MicroBatch m = make_micro_batch(std::move(*batch));
    const PassResult r = run_pass(backend, arenas, model, m, options);
    nll += r.nll_sum();
    correct += std::accumulate(r.correct.begin(), r.correct.end(), std::int64_t{0});
    e.label_tokens += m.label_count();
  }
  const auto tokens = static_cast<double>(std::max<std::int64_t>(1, e.label_tokens));
  e.loss = nll / tokens;
  e.token_accuracy = static_cast<double>(correct) / tokens;

  std::int64_t right = 0;
  for (std::size_t i = 0; i < data.validation.examples.size(); ++i) {
    const auto pair = contrast(data, i);
    if (!pair) continue;
    const MicroBatch m = loaded(*data.processor, *pair, {0, 1});
    const std::vector<double> sums = nll_by_sample(m, run_pass(backend, arenas, model, m, options));
    ++e.yes_no_samples;
    if (sums[0] < sums[1]) ++right;
  }
  if (e.yes_no_samples > 0) {
    e.yes_no_accuracy = static_cast<double>(right) / static_cast<double>(e.yes_no_samples);
  }
  return e;
}

nlohmann::json to_json(const Evaluation& e, std::int64_t step) {
  nlohmann::json j{{"event", "eval"},
                   {"step", step},
                   {"loss", e.loss},
                   {"token_accuracy", e.token_accuracy},
                   {"label_tokens", e.label_tokens},
                   {"samples", e.samples},
                   {"yes_no_samples", e.yes_no_samples}};
  j["yes_no_accuracy"] =
      e.yes_no_samples > 0 ? nlohmann::json(e.yes_no_accuracy) : nlohmann::json();
  return j;
}

}  // namespace medvqa::train
