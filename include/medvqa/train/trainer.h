// The training loop.
#pragma once

#include <functional>
#include <string>

#include "medvqa/ops/profile.h"
#include "medvqa/train/config.h"
#include "medvqa/train/progress.h"
#include "medvqa/train/run_folder.h"

namespace medvqa::train {

struct TrainerOptions {
  FolderRules folder;
  // Looked at between optimizer steps; true: save a checkpoint and stop.
  std::function<bool()> stop_requested = {};
  // Everything but the steps: reads, plans, reports; writes nothing.
  bool dry_run = false;
  BarStyle bar = BarStyle::none;
  // Receives the time of every operation of the steps after the first, or of the only one.
  ops::Profile* profile = nullptr;
};

enum class Outcome : std::uint8_t { finished, stopped };

// Fine-tunes as `config` says and leaves metrics, checkpoints and the adapter in its output folder.
// UserError(ExitCode::diverged) if loss or gradient norm is not finite: nothing was updated then.
// In f16 such a step is skipped (loss_scale.h), and the run ends when the scale falls below one.
Outcome train(const Config& config, const TrainerOptions& options);

}  // namespace medvqa::train
