#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <iostream>

#include "medvqa/app/arguments.h"
#include "medvqa/app/commands.h"
#include "medvqa/train/probe.h"
#include "medvqa/train/trainer.h"

namespace medvqa::app {

namespace {

volatile std::sig_atomic_t signals_seen = 0;

// The first signal asks for a checkpoint and an orderly end, a second one ends at once.
void on_signal(int number) {
  signals_seen = signals_seen + 1;
  if (signals_seen > 1) std::_Exit(128 + number);
}

void catch_signals() {
  struct sigaction action = {};
  action.sa_handler = on_signal;
  for (const int number : {SIGTERM, SIGINT, SIGUSR1}) sigaction(number, &action, nullptr);
}

struct TrainArguments {
  ConfigArguments config;
  LogArguments log;
  std::string resume = "none";
  bool overwrite = false;
  std::string probe, probe_inputs;
  bool print_config = false;

  void add_to(CLI::App& parser);
};

void TrainArguments::add_to(CLI::App& parser) {
  config.add_to(parser);
  parser.add_option("--resume", resume,
                    "auto (the latest checkpoint in the output folder), a checkpoint, or none");
  parser.add_flag("--overwrite", overwrite,
                  "replace what an earlier run left in the output folder");
  parser.add_option("--probe", probe,
                    "write the tensors, loss and gradients of the first optimizer step to FILE "
                    "(safetensors), update nothing");
  parser.add_option("--probe-inputs", probe_inputs,
                    "write the inputs of every training sample to FILE, load no weights");
  parser.add_flag("--print-config", print_config, "print the configuration in force and stop");
  log.add_to(parser);
  parser.footer(
      "Examples:\n"
      "  medvqa train --config qwen2vl_tiny_vqarad.json\n"
      "  medvqa train --config run.json --set train.learning_rate=1e-4 --set output=runs/b\n"
      "  medvqa train --config run.json --resume auto");
}

}  // namespace

int command_train(const std::vector<std::string>& arguments) {
  CLI::App parser("Fine-tunes a vision-language model with LoRA on a 4-bit or 16-bit base.",
                  "train");
  TrainArguments a;
  a.add_to(parser);
  if (!parse(parser, arguments)) return 0;
  a.log.apply();
  const train::Config config = a.config.load();
  if (a.print_config) {
    std::cout << config.resolved.dump(2) << "\n";
    return 0;
  }
  if (!a.probe.empty()) {
    train::write_probe(config, a.probe);
    return 0;
  }
  if (!a.probe_inputs.empty()) {
    train::write_probe_inputs(config, a.probe_inputs);
    return 0;
  }
  catch_signals();
  const train::TrainerOptions options{.folder = {.resume = a.resume, .overwrite = a.overwrite},
                                      .stop_requested = [] { return signals_seen > 0; }};
  const train::Outcome outcome = train::train(config, options);
  if (outcome == train::Outcome::stopped) return static_cast<int>(ExitCode::requeue);
  std::cout << (config.output / "adapter").string() << "\n";
  return 0;
}

}  // namespace medvqa::app
