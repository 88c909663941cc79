#include "medvqa/train/trainer.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>

#include "medvqa/train/adapter_files.h"
#include "medvqa/train/event_log.h"
#include "medvqa/train/fingerprint.h"
#include "medvqa/train/loss_plot.h"
#include "medvqa/train/overflow.h"
#include "medvqa/train/report.h"
#include "medvqa/train/session.h"

namespace medvqa::train {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// Looks for the checkpoint to go on from, before anything in the folder is touched.
nlohmann::json checked_fingerprint(const Config& config, const FolderRules& rules,
                                   const Session& session) {
  nlohmann::json fingerprint = fingerprint_of(config, session.model_inputs(), session.data(),
                                              static_cast<std::int64_t>(session.steps().size()));
  if (const auto checkpoint = RunFolder::check(config.output, rules)) {
    check_fingerprint(*checkpoint, fingerprint, rules.allow_changes);
  }
  return fingerprint;
}

// Of the checkpoint to go on from.
std::optional<std::int64_t> resumed_samples_per_pass(const Config& config,
                                                     const FolderRules& rules) {
  const auto checkpoint = RunFolder::check(config.output, rules);
  return checkpoint ? samples_per_pass_of(*checkpoint) : std::nullopt;
}

// One step of the run and what it was done with.
struct TakenStep {
  StepResult result;
  double learning_rate = 0;
  std::optional<double> loss_scale = std::nullopt;  // f16 only
  bool skipped = false;
};

class Trainer {
 public:
  Trainer(const Config& config, const TrainerOptions& options)
      : config_(config),
        options_(options),
        session_(config, Session::Purpose::train, resumed_samples_per_pass(config, options.folder)),
        folder_(config.output, options.folder, config.resolved,
                checked_fingerprint(config, options.folder, session_)),
        log_(config.output),
        bar_(options.bar),
        total_(static_cast<std::int64_t>(session_.steps().size())) {}

  Outcome run();

 private:
  TakenStep step(const std::vector<MicroBatch>& batches);
  void skip(const std::vector<MicroBatch>& batches, const PassOptions& options);
  Outcome loop();
  void log_step(const TakenStep& s, double seconds);
  void show_step(const TakenStep& s, double seconds);
  void note_device_memory();
  void add_events(const std::vector<Scalar>& scalars);
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
  RunLog log_;
  ProgressBar bar_;
  Pace pace_;
  std::optional<EventLog> events_;
  std::int64_t total_;
  std::int64_t first_ = 0;  // steps done before this process
  Progress progress_;
  std::optional<Evaluation> evaluation_;
};

void report(const Session& session) {
  for (const std::string& line : start_report(session)) spdlog::info("{}", line);
  for (const std::string& line : too_long_report(session.data())) spdlog::warn("{}", line);
}

TakenStep Trainer::step(const std::vector<MicroBatch>& batches) {
  PassOptions options = session_.pass_options(progress_.step);
  TakenStep taken;
  taken.learning_rate = learning_rate(config_.train, progress_.updates(), total_);
  if (progress_.loss_scale) {
    options.gradient_scale = progress_.loss_scale->value();
    taken.loss_scale = options.gradient_scale;
  }
  taken.result = accumulate_gradients(session_.backend(), session_.arenas(), session_.model(),
                                      batches, options);
  const StepResult& r = taken.result;
  const bool finite = std::isfinite(r.loss) && std::isfinite(r.grad_norm);
  taken.skipped = !finite && progress_.loss_scale;
  if (!finite && !progress_.loss_scale) {
    throw UserError(ExitCode::diverged,
                    fmt::format("step {}: loss {} and gradient norm {} are not finite, samples {}; "
                                "nothing was updated. Lower train.learning_rate or look at these "
                                "samples, then go on with --resume auto --allow-changes",
                                progress_.step + 1, r.loss, r.grad_norm,
                                fmt::join(batches.front().sample_ids, ", ")));
  }
  if (finite) {
    update(session_.backend(), session_.model(), r.grad_norm,
           {.learning_rate = taken.learning_rate,
            .weight_decay = config_.train.weight_decay,
            .max_grad_norm = config_.train.max_grad_norm,
            .gradient_scale = options.gradient_scale,
            .step = progress_.updates() + 1});
  }
  if (progress_.loss_scale) progress_.loss_scale->update(finite);
  if (taken.skipped) skip(batches, options);
  ++progress_.step;
  return taken;
}

// The scale is the next step's already.
void Trainer::skip(const std::vector<MicroBatch>& batches, const PassOptions& options) {
  const Overflow overflow =
      find_overflow(session_.backend(), session_.arenas(), session_.model(), batches, options);
  const std::int64_t step = progress_.step + 1;
  if (progress_.loss_scale->exhausted()) {
    throw UserError(
        ExitCode::diverged,
        fmt::format("step {}: f16 overflows even with a loss scale of {}; {}; samples {}. Nothing "
                    "was updated. Set model.compute to bf16 or f32, lower train.learning_rate or "
                    "look at these samples, then go on with --resume auto --allow-changes",
                    step, options.gradient_scale, overflow.text(),
                    fmt::join(batches.front().sample_ids, ", ")));
  }
  ++progress_.skipped;
  bar_.hide();
  spdlog::warn("step {}: skipped, loss scale {} -> {}; {}", step, options.gradient_scale,
               progress_.loss_scale->value(), overflow.text());
}

void Trainer::log_step(const TakenStep& s, double seconds) {
  const StepResult& r = s.result;
  const std::int64_t step = progress_.step;
  if (step % config_.train.log_every != 0 && step != total_) return;
  const double epoch = session_.steps()[static_cast<std::size_t>(step - 1)].epoch;
  // JSON has no infinity: what is not finite becomes null.
  nlohmann::json line{{"event", "step"},
                      {"step", step},
                      {"epoch", epoch},
                      {"loss", r.loss},
                      {"learning_rate", s.learning_rate},
                      {"grad_norm", r.grad_norm},
                      {"label_tokens", r.label_tokens},
                      {"tokens", r.tokens},
                      {"samples", r.samples},
                      {"seconds", seconds}};
  std::vector<Scalar> scalars{{"train/learning_rate", s.learning_rate}};
  if (std::isfinite(r.loss)) scalars.push_back({"train/loss", r.loss});
  if (std::isfinite(r.grad_norm)) scalars.push_back({"train/grad_norm", r.grad_norm});
  if (s.loss_scale) {
    line["loss_scale"] = *s.loss_scale;
    line["skipped_steps"] = progress_.skipped;
    if (s.skipped) line["skipped"] = true;
    scalars.push_back({"train/loss_scale", *s.loss_scale});
  }
  folder_.log(line);
  add_events(scalars);
  show_step(s, seconds);
}

void Trainer::show_step(const TakenStep& s, double seconds) {
  const StepResult& r = s.result;
  const std::int64_t step = progress_.step;
  const std::string line =
      fmt::format("step {}/{} loss {:.4f} rate {:.3g} norm {:.3g} {:.2f} s{}", step, total_, r.loss,
                  s.learning_rate, r.grad_norm, seconds, s.skipped ? ", skipped" : "");
  const std::string left =
      duration_text(pace_.seconds_per_step() * static_cast<double>(total_ - step));
  if (bar_.shown()) {
    log_.note(line);
    // What matters most first: a narrow terminal cuts the end off.
    bar_.draw(step, total_,
              fmt::format("{}/{}, {}loss {:.4f}, {:.2f} s a step", step, total_,
                          pace_.known() ? left + " left, " : "", r.loss, seconds));
    return;
  }
  spdlog::info("{}", line);
  // Once it can be said, and then rarely.
  constexpr std::int64_t kFirst = 3, kTimes = 5;
  const bool now =
      step == first_ + kFirst || (step - first_) % std::max<std::int64_t>(10, total_ / kTimes) == 0;
  if (now && pace_.known() && step < total_) {
    spdlog::info("{:.2f} s a step, {} left", pace_.seconds_per_step(), left);
  }
}

void Trainer::note_device_memory() {
  const std::string line = device_memory_report(session_);
  if (line.empty()) return;
  bar_.hide();
  spdlog::info("{}", line);
}

void Trainer::add_events(const std::vector<Scalar>& scalars) {
  if (!events_) events_.emplace(folder_.path(), first_ + 1);
  events_->add(progress_.step, scalars);
}

void Trainer::evaluate_now() {
  if (session_.data().validation.examples.empty()) return;
  const Evaluation e = evaluate(session_.backend(), session_.arenas(), session_.model(),
                                session_.data(), session_.evaluation_samples());
  evaluation_ = e;
  folder_.log(to_json(e, progress_.step));
  std::vector<Scalar> scalars;
  for (const NamedScore& s : named_scores(e)) scalars.push_back({"eval/" + s.key, s.value});
  add_events(scalars);
  write_loss_plot(folder_.path());
  bar_.hide();
  for (const std::string& line : to_lines(e)) spdlog::info("{}", line);
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
    evaluation_ = evaluate(session_.backend(), session_.arenas(), session_.model(), session_.data(),
                           session_.evaluation_samples());
  }
  const AdapterSummary summary{
      .settings = session_.model_inputs().adapter,
      .base_folder = session_.model_inputs().folder,
      .model_type = session_.model_inputs().config.value("model_type", ""),
      .classes = config_.data.classes,
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
  try {
    return loop();
  } catch (const std::exception& error) {
    bar_.hide();
    log_.note(std::string("ended by an error: ") + error.what());
    throw;
  }
}

Outcome Trainer::loop() {
  const bool is_f16 = session_.model_inputs().settings.compute == DType::f16;
  report(session_);
  if (folder_.checkpoint()) {
    progress_ = restore_checkpoint(*folder_.checkpoint(), session_.backend(), session_.model());
    spdlog::info("resumed after step {} from {}", progress_.step, folder_.checkpoint()->string());
  }
  if (!is_f16) {
    progress_.loss_scale.reset();
  } else if (!progress_.loss_scale) {
    progress_.loss_scale.emplace();
  }
  progress_.samples_per_pass = session_.memory().policy.samples_per_pass;
  first_ = progress_.step;
  folder_.keep_metrics_until(progress_.step);
  auto prefetcher = session_.batches(static_cast<std::size_t>(progress_.step));
  while (progress_.step < total_) {
    if (options_.stop_requested && options_.stop_requested()) {
      checkpoint();
      write_loss_plot(folder_.path());
      bar_.hide();
      spdlog::warn("stopped on a signal after step {}; go on with --resume auto", progress_.step);
      return Outcome::stopped;
    }
    const Clock::time_point begin = Clock::now();
    // The first step warms caches up, and evaluation is not part of a step.
    const bool warm = progress_.step > first_ || first_ + 1 == total_;
    session_.backend().use_profile(warm ? options_.profile : nullptr);
    const PlannedStep& planned = session_.steps()[static_cast<std::size_t>(progress_.step)];
    const TakenStep taken = step(session_.take(*prefetcher, planned));
    const double seconds = seconds_since(begin);
    pace_.add(seconds);
    log_step(taken, seconds);
    if (progress_.step == first_ + 1) note_device_memory();
    session_.backend().use_profile(nullptr);
    if (due(config_.train.eval_every)) evaluate_now();
    const bool best = progress_.best_loss && progress_.best_step == progress_.step;
    if (due(config_.train.save_every) || best) checkpoint();
  }
  bar_.hide();
  if (progress_.skipped > 0) {
    spdlog::info("{} of {} steps were skipped for gradients that are not finite", progress_.skipped,
                 total_);
  }
  finish();
  write_loss_plot(folder_.path());
  return Outcome::finished;
}

}  // namespace

Outcome train(const Config& config, const TrainerOptions& options) {
  RunFolder::check(config.output, options.folder);
  if (options.dry_run) {
    Session session(config, Session::Purpose::train);
    checked_fingerprint(config, options.folder, session);
    report(session);
    return Outcome::finished;
  }
  return Trainer(config, options).run();
}

}  // namespace medvqa::train
