#include <algorithm>
#include <utility>

#include "src/train/objectives.h"

namespace medvqa::train {

namespace {

class ClassObjective final : public Objective {
 public:
  explicit ClassObjective(data::Classes classes) : classes_(std::move(classes)) {}

  void assume_most_rows(MicroBatch& batch) const override {
    batch.classes.assign(static_cast<std::size_t>(batch.input.samples()), 0);
    batch.find_logit_rows();
  }
  data::IntegerTensor labels(const MicroBatch& batch) const override {
    return {"labels", {batch.input.samples()}, {batch.classes.begin(), batch.classes.end()}};
  }
  bool scores_need_logits() const override { return true; }
  std::vector<MicroBatch> scored_batches(const DataInputs& data,
                                         std::int64_t batch_size) const override {
    return validation_batches(data, batch_size);
  }
  Evaluation score(const Scoring& scoring) const override;

 private:
  data::Classes classes_;
};

Evaluation ClassObjective::score(const Scoring& scoring) const {
  const auto count = static_cast<std::ptrdiff_t>(classes_.labels.size());
  std::vector<std::int32_t> truth, predicted;
  double nll = 0;
  run_validation(scoring, true, [&](const MicroBatch& m, const PassResult& r) {
    nll += r.nll_sum();
    truth.insert(truth.end(), m.classes.begin(), m.classes.end());
    for (auto row = r.logits.begin(); row != r.logits.end(); row += count) {
      const auto largest = std::max_element(row, row + count);
      predicted.push_back(static_cast<std::int32_t>(largest - row));
    }
  });
  Evaluation e;
  e.classes = scores::score_classes(truth, predicted, classes_.labels.size());
  e.class_labels = classes_.labels;
  e.samples = e.label_tokens = e.classes->samples;
  e.loss = nll / static_cast<double>(std::max<std::int64_t>(1, e.samples));
  e.token_accuracy = e.classes->accuracy;
  return e;
}

}  // namespace

std::shared_ptr<const Objective> make_class_objective(const data::Classes& classes) {
  return std::make_shared<ClassObjective>(classes);
}

}  // namespace medvqa::train
