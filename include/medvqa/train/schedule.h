// Learning rates and the list of optimizer steps, as Hugging Face's Trainer has them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "medvqa/train/config.h"

namespace medvqa::train {

// The rate of optimizer step `step` (0-based) of `total`:
//   warmup  peak * step / warmup                        while step < warmup
//   linear  peak * (total - step) / (total - warmup)
//   cosine  peak * (1 + cos(pi * (step - warmup) / (total - warmup))) / 2
//   constant peak
double learning_rate(const TrainConfig& config, std::int64_t step, std::int64_t total);

// One optimizer step: its micro-batches, each a list of indices into the data set.
struct PlannedStep {
  double epoch = 0;  // fraction of the data seen when the step is done, in epochs
  std::vector<std::vector<std::int64_t>> micro_batches;
};

// Every step of a run over `examples` samples. A last smaller micro-batch, and a last smaller group
// of them, end an epoch. Without packing every sample is a micro-batch of its own. `lengths`: the
// tokens of each sample, for data.group_by_length.
std::vector<PlannedStep> plan_steps(const TrainConfig& train, const DataConfig& data,
                                    std::int64_t examples,
                                    std::span<const std::int64_t> lengths = {});

// Micro-batches of more than `samples` samples become several of at most that many, in order.
std::vector<std::vector<std::int64_t>> in_passes(
    const std::vector<std::vector<std::int64_t>>& micro_batches, std::int64_t samples);

}  // namespace medvqa::train
