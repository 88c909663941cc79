// A run with everything in place: inputs read, steps planned, memory taken, weights loaded.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "medvqa/train/evaluate.h"
#include "medvqa/train/policy.h"
#include "medvqa/train/run_inputs.h"
#include "medvqa/train/schedule.h"

namespace medvqa::train {

class Session {
 public:
  enum class Purpose : std::uint8_t {
    train,
    probe,  // the first optimizer step only, with all its logits
  };
  // `samples_per_pass`: of the run that is resumed, if it is known.
  Session(const Config& config, Purpose purpose, std::optional<std::int64_t> samples_per_pass = {});
  // The configuration is read for as long as the session lives.
  Session(const Config&& config, Purpose purpose, std::optional<std::int64_t> = {}) = delete;

  const Config& config() const { return config_; }
  ops::Backend& backend() { return *backend_; }
  const ops::Backend& backend() const { return *backend_; }
  Arenas& arenas() { return *arenas_; }
  AdaptedModel& model() { return *adapted_; }
  const AdaptedModel& model() const { return *adapted_; }
  const ModelInputs& model_inputs() const { return model_; }
  const DataInputs& data() const { return data_; }
  const std::vector<PlannedStep>& steps() const { return steps_; }
  const MemoryPlan& memory() const { return memory_; }
  // Bytes the device had left before the arenas; only of devices with memory of their own.
  std::optional<std::size_t> free_at_start() const { return free_at_start_; }
  // Samples of a forward pass of evaluate().
  std::int64_t evaluation_samples() const { return memory_.policy.samples_per_pass; }

  // What a pass of optimizer step `step` (0-based) uses.
  PassOptions pass_options(std::int64_t step) const;
  // Micro-batches of planned steps [first, end), in order, prepared ahead.
  std::unique_ptr<data::Prefetcher> batches(std::size_t first) const;
  // The next planned step's micro-batches from it.
  std::vector<MicroBatch> take(data::Prefetcher& prefetcher, const PlannedStep& step) const;

 private:
  void plan(Purpose purpose, std::optional<std::int64_t> samples_per_pass);
  PlannedWork planned_work(Purpose purpose, std::int64_t samples_per_pass) const;

  const Config& config_;
  std::unique_ptr<ops::Backend> backend_;
  ModelInputs model_;
  DataInputs data_;
  std::vector<PlannedStep> steps_;
  MemoryPlan memory_;
  std::optional<std::size_t> free_at_start_;
  std::unique_ptr<Arenas> arenas_;
  std::unique_ptr<AdaptedModel> adapted_;
};

}  // namespace medvqa::train
