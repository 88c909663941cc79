#include <algorithm>
#include <cctype>
#include <numeric>
#include <optional>

#include "src/train/objectives.h"

namespace medvqa::train {

namespace {

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

class TokenObjective final : public Objective {
 public:
  // Every token that is not an image's carries a label, at worst.
  void assume_most_rows(MicroBatch& b) const override {
    const std::vector<std::int32_t>& ids = b.input.ids;
    for (std::size_t t = 0; t + 1 < ids.size(); ++t) {
      if (ids[t + 1] == ids.front() || ids[t + 1] != ids.back()) continue;
      b.logit_rows.push_back(static_cast<std::int32_t>(t));
      b.targets.push_back(ids.back());
    }
  }
  data::IntegerTensor labels(const MicroBatch& batch) const override {
    return {"labels", {batch.input.tokens()}, {batch.labels.begin(), batch.labels.end()}};
  }
  bool scores_need_logits() const override { return false; }
  std::vector<MicroBatch> scored_batches(const DataInputs& data,
                                         std::int64_t batch_size) const override;
  Evaluation score(const Scoring& scoring) const override;

 private:
  static void score_yes_no(const Scoring& s, Evaluation& e);
};

std::vector<MicroBatch> TokenObjective::scored_batches(const DataInputs& data,
                                                       std::int64_t batch_size) const {
  std::vector<MicroBatch> batches = validation_batches(data, batch_size);
  for (std::size_t i = 0; i < data.validation.examples.size(); ++i) {
    if (const auto pair = contrast(data, i)) {
      batches.push_back(dry_micro_batch(*data.processor, *pair, {0, 1}));
    }
  }
  return batches;
}

void TokenObjective::score_yes_no(const Scoring& s, Evaluation& e) {
  PassOptions options;
  options.training = false;
  std::int64_t right = 0;
  for (std::size_t i = 0; i < s.data.validation.examples.size(); ++i) {
    const auto pair = contrast(s.data, i);
    if (!pair) continue;
    const data::Example* both[] = {&pair->examples[0], &pair->examples[1]};
    const MicroBatch m = make_micro_batch(data::pack(*s.data.processor, both, true));
    const std::vector<double> sums =
        nll_by_sample(m, run_pass(s.backend, s.arenas, s.model, m, options));
    ++e.yes_no_samples;
    if (sums[0] < sums[1]) ++right;
  }
  if (e.yes_no_samples > 0) {
    e.yes_no_accuracy = static_cast<double>(right) / static_cast<double>(e.yes_no_samples);
  }
}

Evaluation TokenObjective::score(const Scoring& scoring) const {
  Evaluation e;
  e.samples = static_cast<std::int64_t>(scoring.data.validation.examples.size());
  double nll = 0;
  std::int64_t correct = 0;
  run_validation(scoring, false, [&](const MicroBatch& m, const PassResult& r) {
    nll += r.nll_sum();
    correct += std::accumulate(r.correct.begin(), r.correct.end(), std::int64_t{0});
    e.label_tokens += m.label_count();
  });
  const auto tokens = static_cast<double>(std::max<std::int64_t>(1, e.label_tokens));
  e.loss = nll / tokens;
  e.token_accuracy = static_cast<double>(correct) / tokens;
  score_yes_no(scoring, e);
  return e;
}

}  // namespace

std::shared_ptr<const Objective> make_token_objective() {
  return std::make_shared<TokenObjective>();
}

}  // namespace medvqa::train
