#include "medvqa/train/loss_scale.h"

#include <cmath>

namespace medvqa::train {

void LossScale::update(bool finite) {
  if (!finite) {
    state_ = {.scale = state_.scale * settings_.backoff, .finite_steps = 0};
    return;
  }
  if (++state_.finite_steps < settings_.growth_interval) return;
  const float larger = state_.scale * settings_.growth;
  if (std::isfinite(larger)) state_.scale = larger;
  state_.finite_steps = 0;
}

}  // namespace medvqa::train
