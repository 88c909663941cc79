// The two objectives, and the passes their scores are made from. Internal to the train module.
#pragma once

#include <functional>
#include <memory>

#include "medvqa/train/evaluate.h"
#include "medvqa/train/objective.h"

namespace medvqa::train {

std::shared_ptr<const Objective> make_token_objective();
std::shared_ptr<const Objective> make_class_objective(const data::Classes& classes);

// The validation samples in batches, in order; without patches.
std::vector<MicroBatch> validation_batches(const DataInputs& data, std::int64_t batch_size);

// Runs them forward, and `use`s each with its results.
void run_validation(const Scoring& scoring, bool want_logits,
                    const std::function<void(const MicroBatch&, const PassResult&)>& use);

}  // namespace medvqa::train
