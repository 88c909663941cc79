// Scores during training, on held-out samples, without generating text.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "medvqa/train/run_inputs.h"
#include "medvqa/train/step.h"

namespace medvqa::train {

struct Evaluation {
  double loss = 0;            // mean negative log likelihood of all label tokens
  double token_accuracy = 0;  // share of label tokens with the largest logit
  std::int64_t label_tokens = 0;
  std::int64_t samples = 0;
  // Of the samples whose answer is yes or no: the share where the log-likelihood of the right one,
  // summed over its tokens and the end of turn, is the larger. No value without such samples.
  std::int64_t yes_no_samples = 0;
  double yes_no_accuracy = 0;
};

Evaluation evaluate(ops::Backend& backend, Arenas& arenas, const AdaptedModel& model,
                    const DataInputs& data, std::int64_t batch_size);

// The micro-batches evaluate() will run, without patches: for the memory plan.
std::vector<MicroBatch> evaluation_batches(const DataInputs& data, std::int64_t batch_size);

nlohmann::json to_json(const Evaluation& e, std::int64_t step);

}  // namespace medvqa::train
