// What a run's loss is computed on and how its model is scored: the one place that knows the task.
//   tokens:  cross-entropy of every label token over the vocabulary head, which is frozen
//   classes: cross-entropy of a sample's class, at its last token, over the head's rows of the
//            classes' tokens, which are trained in full
// Step, plan and probe run on a batch's rows and targets (MicroBatch) and on AdaptedModel::head(),
// whichever these are.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "medvqa/data/processor.h"
#include "medvqa/train/adapted_model.h"
#include "medvqa/train/config.h"
#include "medvqa/train/micro_batch.h"

namespace medvqa::train {

struct DataInputs;
struct Evaluation;

// What a model is scored on.
struct Scoring {
  ops::Backend& backend;
  Arenas& arenas;
  const AdaptedModel& model;
  const DataInputs& data;
  std::int64_t batch_size = 1;
};

class Objective {
 public:
  virtual ~Objective() = default;
  // Rows and targets of a batch without labels: as many as there can be.
  virtual void assume_most_rows(MicroBatch& batch) const = 0;
  // "labels" of the probe file.
  virtual data::IntegerTensor labels(const MicroBatch& batch) const = 0;
  // Whether score() wants the logits, which take memory.
  virtual bool scores_need_logits() const = 0;
  // The batches score() runs, without patches.
  virtual std::vector<MicroBatch> scored_batches(const DataInputs& data,
                                                 std::int64_t batch_size) const = 0;
  // Of the validation samples; nothing is generated.
  virtual Evaluation score(const Scoring& scoring) const = 0;
};

// Of classes if the configuration has them, else of tokens.
std::shared_ptr<const Objective> make_objective(const DataConfig& config);

}  // namespace medvqa::train
