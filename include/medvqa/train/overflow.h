// Where a step whose gradients are not finite went wrong.
#pragma once

#include <string>

#include "medvqa/train/step.h"

namespace medvqa::train {

struct Overflow {
  // The first trained tensor in the order of the backward whose gradient has no finite norm, as
  // AdaptedModel::trained_names() has it; empty: all have.
  std::string gradient;
  // The module whose output is the first of the forward that is not finite, or "the loss"; empty:
  // the forward is finite, it is the backward that overflows.
  std::string forward;
  // Both, for people.
  std::string text() const;
};

// Looks closer after accumulate_gradients() returned a norm that is not finite: at each gradient,
// then at every segment of another forward of these batches with these options. Gradients stay.
Overflow find_overflow(ops::Backend& backend, Arenas& arenas, const AdaptedModel& model,
                       std::span<const MicroBatch> batches, const PassOptions& options);

}  // namespace medvqa::train
