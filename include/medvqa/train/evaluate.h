// Scores during training, on held-out samples, without generating text.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "medvqa/scores/classification.h"
#include "medvqa/train/run_inputs.h"
#include "medvqa/train/step.h"

namespace medvqa::train {

struct PlannedWork;

struct Evaluation {
  double loss = 0;            // mean negative log likelihood of all label tokens, or classes
  double token_accuracy = 0;  // share of label tokens, or classes, with the largest logit
  std::int64_t label_tokens = 0;
  std::int64_t samples = 0;
  // Of the samples whose answer is yes or no: the share where the log-likelihood of the right one,
  // summed over its tokens and the end of turn, is the larger. No value without such samples.
  std::int64_t yes_no_samples = 0;
  double yes_no_accuracy = 0;
  // Of a classification, and its classes' labels.
  std::optional<scores::Classification> classes;
  std::vector<std::string> class_labels;
};

Evaluation evaluate(ops::Backend& backend, Arenas& arenas, const AdaptedModel& model,
                    const DataInputs& data, std::int64_t batch_size);

// Adds the passes evaluate() will make to what is planned.
void add_evaluation(const DataInputs& data, std::int64_t batch_size, PlannedWork& work);

nlohmann::json to_json(const Evaluation& e, std::int64_t step);

// The single numbers, for event files ("eval/KEY") and the model card.
struct NamedScore {
  std::string key, title;
  double value = 0;
};
std::vector<NamedScore> named_scores(const Evaluation& e);

// For the log: a line, and of a classification its confusion matrix.
std::vector<std::string> to_lines(const Evaluation& e);

}  // namespace medvqa::train
