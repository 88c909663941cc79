#include "medvqa/train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "medvqa/core/error.h"
#include "medvqa/data/dataset.h"

namespace medvqa::train {

double learning_rate(const TrainConfig& c, std::int64_t step, std::int64_t total) {
  const auto s = static_cast<double>(step);
  const auto warmup = static_cast<double>(c.warmup_steps);
  if (step < c.warmup_steps) return c.learning_rate * (s / std::max(1.0, warmup));
  const double rest = std::max(1.0, static_cast<double>(total) - warmup);
  switch (c.schedule) {
    case Schedule::constant:
      return c.learning_rate;
    case Schedule::linear:
      return c.learning_rate * std::max(0.0, (static_cast<double>(total) - s) / rest);
    case Schedule::cosine: {
      const double progress = (s - warmup) / rest;
      return c.learning_rate * std::max(0.0, 0.5 * (1 + std::cos(std::numbers::pi * progress)));
    }
  }
  return c.learning_rate;
}

namespace {

using Indices = std::vector<std::int64_t>;

// The micro-batches of one epoch, grouped into optimizer steps.
std::vector<PlannedStep> epoch_steps(const TrainConfig& train, bool packing, const Indices& order,
                                     std::int64_t epoch) {
  const auto batch = static_cast<std::size_t>(train.batch_size);
  const auto group = batch * static_cast<std::size_t>(train.gradient_accumulation);
  const std::size_t micro = packing ? batch : 1;
  std::vector<PlannedStep> steps;
  for (std::size_t begin = 0; begin < order.size(); begin += group) {
    const std::size_t end = std::min(order.size(), begin + group);
    PlannedStep step;
    step.epoch =
        static_cast<double>(epoch) + static_cast<double>(end) / static_cast<double>(order.size());
    for (std::size_t i = begin; i < end; i += micro) {
      const auto first = order.begin() + static_cast<std::ptrdiff_t>(i);
      const auto last = order.begin() + static_cast<std::ptrdiff_t>(std::min(end, i + micro));
      step.micro_batches.emplace_back(first, last);
    }
    steps.push_back(std::move(step));
  }
  return steps;
}

}  // namespace

std::vector<Indices> in_passes(const std::vector<Indices>& micro_batches, std::int64_t samples) {
  MEDVQA_CHECK(samples >= 1, "a pass has at least one sample");
  const auto most = static_cast<std::size_t>(samples);
  std::vector<Indices> passes;
  for (const Indices& batch : micro_batches) {
    for (std::size_t begin = 0; begin < batch.size(); begin += most) {
      const auto first = batch.begin() + static_cast<std::ptrdiff_t>(begin);
      const std::size_t end = std::min(batch.size(), begin + most);
      passes.emplace_back(first, batch.begin() + static_cast<std::ptrdiff_t>(end));
    }
  }
  return passes;
}

std::vector<PlannedStep> plan_steps(const TrainConfig& train, const DataConfig& data,
                                    std::int64_t examples, std::span<const std::int64_t> lengths) {
  std::vector<PlannedStep> steps;
  for (std::int64_t epoch = 0; train.max_steps || epoch < train.epochs; ++epoch) {
    Indices order = data::epoch_order(examples, data.shuffle, train.seed, epoch);
    if (data.group_by_length) {
      order = data::length_grouped(std::move(order), lengths,
                                   train.batch_size * train.gradient_accumulation);
    }
    for (PlannedStep& step : epoch_steps(train, data.packing, order, epoch)) {
      if (train.max_steps && static_cast<std::int64_t>(steps.size()) == *train.max_steps) {
        return steps;
      }
      steps.push_back(std::move(step));
    }
  }
  return steps;
}

}  // namespace medvqa::train
