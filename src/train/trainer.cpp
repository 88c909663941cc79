#include "medvqa/train/trainer.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>

#include "medvqa/train/adapter_files.h"
#include "medvqa/train/session.h"

namespace medvqa::train {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

class Trainer {
 public:
  Trainer(const Config& config, const TrainerOptions& options)
      : config_(config),
        options_(options),
        session_(config, Session::Purpose::train),
        folder_(config.output, options.folder, config.resolved),
        total_(static_cast<std::int64_t>(session_.steps().size())) {}

  Outcome run();

 private:
  void report_start() const;
  StepResult step(std::vector<MicroBatch> batches);
  void log_step(const StepResult& r, double seconds);
  void evaluate_now();
  void checkpoint();
  void finish();
  bool due(std::optional<std::int64_t> every) const {
    return progress_.step == total_ || (every && progress_.step % *every == 0);
  }

  const Config& config_;
  const TrainerOptions& options_;
  Session session_;
  RunFolder folder_;
  std::int64_t total_;
  Progress progress_;
  std::optional<Evaluation> evaluation_;
};

void Trainer::report_start() const {
  const MemoryPlan& m = session_.memory();
  constexpr double kMiB = 1024.0 * 1024.0;
  spdlog::info("{} parameters, {} trainable in {} linears, compute {}",
               m.parameters.frozen + m.parameters.trainable, m.parameters.trainable,
               const_cast<Session&>(session_).model().modules().size(),
               medvqa::name_of(session_.model_inputs().settings.compute));
  spdlog::info(
      "memory MiB: weights {:.1f}, adapters {:.1f}, step {:.1f}, block {:.1f}, scratch "
      "{:.1f}, total {:.1f}; recompute {}",
      static_cast<double>(m.sizes.weights) / kMiB, static_cast<double>(m.sizes.adapters) / kMiB,
      static_cast<double>(m.sizes.step) / kMiB, static_cast<double>(m.sizes.block) / kMiB,
      static_cast<double>(m.sizes.scratch) / kMiB, static_cast<double>(m.sizes.total()) / kMiB,
      name_of(m.recompute));
  const DataInputs& d = session_.data();
  spdlog::info("{} training samples, {} held out, {} optimizer steps", d.train.examples.size(),
               d.validation.examples.size(), total_);
  for (const auto& reason : d.dropped)
    spdlog::info("left out: {} rows, {}", reason.second, reason.first);
  if (!d.train.too_long.empty()) {
    spdlog::warn("{} samples are longer than data.max_length and dropped, the first is {}",
                 d.train.too_long.size(), d.train.too_long.front());
  }
}

StepResult Trainer::step(std::vector<MicroBatch> batches) {
  const StepResult r = accumulate_gradients(session_.backend(), session_.arenas(), session_.model(),
                                            batches, session_.pass_options(progress_.step));
  if (!std::isfinite(r.loss) || !std::isfinite(r.grad_norm)) {
    throw UserError(ExitCode::diverged,
                    fmt::format("step {}: loss {} and gradient norm {} are not finite, samples {}; "
                                "nothing was updated. Lower train.learning_rate or look at these "
                                "samples, then go on with --resume auto",
                                progress_.step + 1, r.loss, r.grad_norm,
                                fmt::join(batches.front().sample_ids, ", ")));
  }
  update(session_.backend(), session_.model(), r.grad_norm,
         {.learning_rate = learning_rate(config_.train, progress_.step, total_),
          .weight_decay = config_.train.weight_decay,
          .max_grad_norm = config_.train.max_grad_norm,
          .step = progress_.step + 1});
  ++progress_.step;
  return r;
}

void Trainer::log_step(const StepResult& r, double seconds) {
  const std::int64_t step = progress_.step;
  if (step % config_.train.log_every != 0 && step != total_) return;
  const double rate = learning_rate(config_.train, step - 1, total_);
  const double epoch = session_.steps()[static_cast<std::size_t>(step - 1)].epoch;
  folder_.log({{"event", "step"},
               {"step", step},
               {"epoch", epoch},
               {"loss", r.loss},
               {"learning_rate", rate},
               {"grad_norm", r.grad_norm},
               {"label_tokens", r.label_tokens},
               {"tokens", r.tokens},
               {"samples", r.samples},
               {"seconds", seconds}});
  spdlog::info("step {}/{} loss {:.4f} rate {:.3g} norm {:.3g} {:.2f} s", step, total_, r.loss,
               rate, r.grad_norm, seconds);
}

void Trainer::evaluate_now() {
  if (session_.data().validation.examples.empty()) return;
  const Evaluation e = evaluate(session_.backend(), session_.arenas(), session_.model(),
                                session_.data(), config_.train.batch_size);
  evaluation_ = e;
  folder_.log(to_json(e, progress_.step));
  spdlog::info("held out: loss {:.4f}, token accuracy {:.3f}, yes/no accuracy {:.3f} (n = {})",
               e.loss, e.token_accuracy, e.yes_no_accuracy, e.yes_no_samples);
  if (!progress_.best_loss || e.loss < *progress_.best_loss) {
    progress_.best_loss = e.loss;
    progress_.best_step = progress_.step;
  }
}

void Trainer::checkpoint() {
  folder_.save_checkpoint(session_.backend(), session_.model(), progress_, config_.train.keep);
}

void Trainer::finish() {
  // Resumed after the last evaluation: the card's scores are found again, and logged already.
  if (!evaluation_ && !session_.data().validation.examples.empty()) {
    evaluation_ = evaluate(session_.backend(), session_.arenas(), session_.model(),
                           session_.data(), config_.train.batch_size);
  }
  const AdapterSummary summary{
      .settings = session_.model_inputs().adapter,
      .base_folder = session_.model_inputs().folder,
      .model_type = session_.model_inputs().config.value("model_type", ""),
      .card = model_card(config_, session_.model_inputs(), progress_.step, evaluation_)};
  const std::filesystem::path folder = folder_.path() / "adapter";
  const std::vector<std::string> idle =
      save_adapter(session_.backend(), session_.model(), folder, summary);
  if (!idle.empty()) {
    spdlog::warn(
        "{} of {} linears have an adapter with B = 0, which changes nothing; the first "
        "is {}",
        idle.size(), session_.model().modules().size(), idle.front());
  }
  auto prefetcher = session_.batches(session_.steps().size() - 1);
  const std::vector<MicroBatch> last = session_.take(*prefetcher, session_.steps().back());
  const double effect =
      effect_on_logits(session_.backend(), session_.arenas(), session_.model(), last.front());
  spdlog::info("the adapter moves logits by up to {:.3g}", effect);
  spdlog::info("adapter: {}", folder.string());
}

Outcome Trainer::run() {
  report_start();
  if (folder_.checkpoint()) {
    progress_ = restore_checkpoint(*folder_.checkpoint(), session_.backend(), session_.model());
    spdlog::info("resumed after step {} from {}", progress_.step, folder_.checkpoint()->string());
  }
  folder_.keep_metrics_until(progress_.step);
  auto prefetcher = session_.batches(static_cast<std::size_t>(progress_.step));
  while (progress_.step < total_) {
    if (options_.stop_requested && options_.stop_requested()) {
      checkpoint();
      spdlog::warn("stopped on a signal after step {}; go on with --resume auto", progress_.step);
      return Outcome::stopped;
    }
    const Clock::time_point begin = Clock::now();
    const PlannedStep& planned = session_.steps()[static_cast<std::size_t>(progress_.step)];
    const StepResult r = step(session_.take(*prefetcher, planned));
    log_step(r, seconds_since(begin));
    if (due(config_.train.eval_every)) evaluate_now();
    if (due(config_.train.save_every)) checkpoint();
  }
  finish();
  return Outcome::finished;
}

}  // namespace

Outcome train(const Config& config, const TrainerOptions& options) {
  return Trainer(config, options).run();
}

}  // namespace medvqa::train
