#include "medvqa/app/next_command.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

namespace medvqa::app {

namespace {

// The command that has just run, with `added` behind it.
std::string command_again(const ConfigArguments& arguments, const std::string& added) {
  std::string text = "medvqa train --config " + quoted(arguments.file);
  for (const std::string& o : arguments.overrides) text += " --set " + quoted(o);
  return text + added;
}

}  // namespace

std::string quoted(const std::string& word) {
  constexpr const char* kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+./:=,@%";
  if (!word.empty() && word.find_first_not_of(kPlain) == std::string::npos) return word;
  std::string out = "'";
  for (const char c : word) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

void report_dry_run(const ConfigArguments& arguments) {
  spdlog::info("dry run: nothing was written; next: {}", command_again(arguments, ""));
}

void report_end(const ConfigArguments& arguments, const train::Config& config,
                train::Outcome outcome) {
  if (outcome == train::Outcome::stopped) {
    spdlog::info("next: {}", command_again(arguments, " --resume auto"));
    return;
  }
  const std::string run = config.output.string();
  spdlog::info("curves: {}/loss.svg; tensorboard --logdir {}", run, quoted(run));
  const std::string trained = quoted("lora.init_from=" + run + "/adapter");
  const bool held_out = config.data.validation_fraction || !config.data.validation.empty();
  if (held_out) {
    spdlog::info("next, to score this adapter again: {}",
                 command_again(arguments, " --evaluate --set " + trained));
  }
  spdlog::info("next, to train on from it: {}",
               command_again(arguments, fmt::format(" --set {} --set {}", trained,
                                                    quoted("output=" + run + "-2"))));
  spdlog::info("next, to make one model of base and adapter: medvqa export --run {} --out {}",
               quoted(run), quoted(run + "/merged"));
}

}  // namespace medvqa::app
