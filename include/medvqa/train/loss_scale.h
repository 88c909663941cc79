// Dynamic loss scaling: what keeps small f16 gradients from becoming zero.
//
// The loss gradient is multiplied by a power of two, all gradients with it, and AdamW divides it
// out again, exactly. A step with a gradient that is not finite updates nothing and halves the
// scale; `growth_interval` finite steps in a row double it. Micikevicius et al. 2018.
//
// Behaves as torch 2.11.0's torch.amp.GradScaler with its defaults, as Trainer(fp16=True) of
// transformers 5.17.0 runs it through accelerate 1.15.0 (AcceleratedOptimizer.step,
// AcceleratedScheduler.step):
//   - gradients are unscaled before their norm is taken and clipped;
//   - a skipped step leaves the optimizer alone (its state, its step count for the bias
//     correction) and does not advance the learning rate's schedule;
//   - it counts as a step of the run all the same: global_step, the data, the log.
#pragma once

#include <cstdint>

namespace medvqa::train {

class LossScale {
 public:
  struct Settings {
    float initial = 65536;
    float growth = 2;
    float backoff = 0.5;
    std::int64_t growth_interval = 2000;
  };
  // What a checkpoint keeps.
  struct State {
    float scale = 0;
    std::int64_t finite_steps = 0;  // since the scale last changed, GradScaler's growth tracker
    bool operator==(const State&) const = default;
  };

  LossScale() : LossScale(Settings{}) {}
  explicit LossScale(const Settings& settings)
      : settings_(settings), state_{.scale = settings.initial, .finite_steps = 0} {}

  float value() const { return state_.scale; }
  const State& state() const { return state_; }
  void restore(const State& state) { state_ = state; }

  // After a step; `finite`: whether all its gradients were. The scale never becomes infinite.
  void update(bool finite);
  // Below one, scaling makes gradients smaller: the overflow is not its doing.
  bool exhausted() const { return state_.scale < 1; }

 private:
  Settings settings_;
  State state_;
};

}  // namespace medvqa::train
