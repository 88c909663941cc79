#include "medvqa/train/session.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include "medvqa/core/philox.h"
#include "medvqa/train/adapter_files.h"
#include "medvqa/train/available_memory.h"
#include "medvqa/train/backend_factory.h"
#include "medvqa/train/plan.h"

namespace medvqa::train {

Session::Session(const Config& config, Purpose purpose,
                 std::optional<std::int64_t> samples_per_pass)
    : config_(config),
      backend_(make_backend(config.device)),
      model_(open_model(config, true, backend_->traits())),
      data_(open_data(config, model_)) {
  std::vector<std::int64_t> lengths;
  for (const data::Example& e : data_.train.examples) {
    lengths.push_back(static_cast<std::int64_t>(e.ids.size()));
  }
  steps_ =
      plan_steps(config.train, config.data, static_cast<std::int64_t>(lengths.size()), lengths);
  if (purpose == Purpose::probe) steps_.resize(1);
  plan(purpose, samples_per_pass);
  free_at_start_ = backend_->free_memory();
  arenas_ = std::make_unique<Arenas>(*backend_, memory_.sizes);
  adapted_ = std::make_unique<AdaptedModel>(*backend_, *arenas_, *model_.source, model_.config,
                                            model_.settings);
  if (adapted_->modules().empty()) {
    throw UserError(ExitCode::config,
                    "no linear is adapted: lora.vision, lora.language, lora.attention, lora.mlp "
                    "or lora.targets leave none; switch at least one on");
  }
  if (model_.start) {
    load_adapter(*backend_, *model_.start, *adapted_);
  } else {
    adapted_->initialize_adapters(*backend_, config.train.seed);
  }
  adapted_->clear_optimizer(*backend_);
}

PlannedWork Session::planned_work(Purpose purpose, std::int64_t samples_per_pass) const {
  PlannedWork work;
  std::vector<std::vector<std::int64_t>> last;
  for (const PlannedStep& step : steps_) {
    last = in_passes(step.micro_batches, samples_per_pass);
    for (const auto& indices : last) {
      work.train.push_back(dry_micro_batch(*data_.processor, data_.train, indices));
    }
  }
  work.train = largest(std::move(work.train));
  if (purpose == Purpose::probe) {
    work.train_logits = true;
    return work;
  }
  add_evaluation(data_, samples_per_pass, work);
  // The proof of the written adapter looks at logits of the last step's first micro-batch.
  work.logits.push_back(dry_micro_batch(*data_.processor, data_.train, last.front()));
  return work;
}

void Session::plan(Purpose purpose, std::optional<std::int64_t> samples_per_pass) {
  PolicyRequest request{.recompute = config_.train.recompute,
                        .offload = config_.train.offload,
                        .batch_size = config_.train.batch_size,
                        .samples_per_pass = samples_per_pass,
                        .host_capacity = available_memory() / 2};
  const std::size_t available = available_memory(*backend_);
  const auto choose = [&] {
    memory_ = choose_policy(backend_->traits(), model_, request, usable_memory(*backend_),
                            [&](auto samples) { return planned_work(purpose, samples); })
                  .plan;
  };
  choose();
  if (samples_per_pass && memory_.sizes.total() > available) {
    request.samples_per_pass.reset();
    choose();
    spdlog::warn(
        "{} samples a pass, as the run was begun with, do not fit here; with {} its sums "
        "are in another order",
        *samples_per_pass, memory_.policy.samples_per_pass);
  }
  apply(memory_.policy, model_.settings);
  for (PlannedStep& step : steps_) {
    step.micro_batches = in_passes(step.micro_batches, memory_.policy.samples_per_pass);
  }
  if (memory_.sizes.total() > available) {
    const std::vector<std::string> changes = changes_that_fit(config_, "");
    throw UserError(
        ExitCode::memory,
        fmt::format(
            "the run needs {} bytes and {} has {} left; what would make it fit: "
            "{}; see medvqa plan",
            memory_.sizes.total(), memory_owner(*backend_), available,
            changes.empty() ? "a larger machine" : fmt::format("{}", fmt::join(changes, ", "))));
  }
}

PassOptions Session::pass_options(std::int64_t step) const {
  PassOptions o;
  apply(memory_.policy, o);
  o.dropout = model_.settings.lora.dropout > 0;
  const auto words = philox4x32(config_.train.seed, 0, static_cast<std::uint64_t>(step));
  o.random_key = std::uint64_t{words[0]} << 32 | words[1];
  return o;
}

std::unique_ptr<data::Prefetcher> Session::batches(std::size_t first) const {
  std::vector<std::vector<std::int64_t>> lists;
  for (std::size_t s = first; s < steps_.size(); ++s) {
    lists.insert(lists.end(), steps_[s].micro_batches.begin(), steps_[s].micro_batches.end());
  }
  return std::make_unique<data::Prefetcher>(*data_.processor, data_.train, std::move(lists),
                                            config_.data.threads);
}

std::vector<MicroBatch> Session::take(data::Prefetcher& prefetcher, const PlannedStep& step) const {
  std::vector<MicroBatch> batches;
  for (std::size_t i = 0; i < step.micro_batches.size(); ++i) {
    std::optional<data::Batch> batch = prefetcher.next();
    MEDVQA_CHECK(batch.has_value(), "the prefetcher ended before the plan");
    batches.push_back(make_micro_batch(std::move(*batch)));
  }
  return batches;
}

}  // namespace medvqa::train
