#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>

#include "medvqa/app/arguments.h"
#include "medvqa/app/commands.h"
#include "medvqa/app/next_command.h"
#include "medvqa/app/signals.h"
#include "medvqa/train/config_schema.h"
#include "medvqa/train/evaluate_only.h"
#include "medvqa/train/probe.h"
#include "medvqa/train/trainer.h"

namespace medvqa::app {

namespace {

struct TrainArguments {
  ConfigArguments config;
  LogArguments log;
  std::string resume = "none";
  bool overwrite = false;
  bool allow_changes = false;
  std::string probe, probe_inputs;
  bool evaluate = false, shuffle_images = false;
  bool print_config = false, print_schema = false, print_reference = false;
  bool dry_run = false;
  bool profile = false;

  void add_to(CLI::App& parser);
};

void TrainArguments::add_to(CLI::App& parser) {
  config.add_to(parser);
  parser.add_option("--resume", resume,
                    "auto (the latest checkpoint in the output folder), a checkpoint, or none");
  parser.add_flag("--overwrite", overwrite,
                  "replace what an earlier run left in the output folder");
  parser.add_flag("--allow-changes", allow_changes,
                  "resume although settings differ from those the checkpoint was saved under");
  parser.add_option("--probe", probe,
                    "write the tensors, loss and gradients of the first optimizer step to FILE "
                    "(safetensors), update nothing");
  parser.add_option("--probe-inputs", probe_inputs,
                    "write the inputs of every training sample to FILE, load no weights");
  auto* evaluate_flag = parser.add_flag(
      "--evaluate", evaluate,
      "score the validation samples with the adapter of lora.init_from, or the base "
      "model without one; print JSON, write nothing");
  parser
      .add_flag("--shuffle-images", shuffle_images,
                "with --evaluate: every question about another sample's image")
      ->needs(evaluate_flag);
  parser.add_flag("--dry-run", dry_run,
                  "read, plan and report everything, take no step, write nothing");
  parser.add_flag("--print-config", print_config, "print the configuration in force and stop");
  parser.add_flag("--print-schema", print_schema, "print the JSON Schema of configurations");
  parser.add_flag("--print-reference", print_reference, "print the keys as a page of Markdown");
  parser.add_flag("--profile", profile, "print where the time of the steps goes, by operation");
  log.add_to(parser);
  parser.footer(
      "Examples:\n"
      "  medvqa train --config qwen2vl_tiny_vqarad.json\n"
      "  medvqa train --config run.json --set train.learning_rate=1e-4 --set output=runs/b\n"
      "  medvqa train --config run.json --resume auto\n\n" +
      train::config_help());
}

// What needs no configuration.
bool print_table(const std::vector<std::string>& arguments) {
  const auto asked = [&](const char* flag) {
    return std::find(arguments.begin(), arguments.end(), flag) != arguments.end();
  };
  if (asked("--print-schema")) {
    std::cout << train::config_schema().dump(2) << "\n";
    return true;
  }
  if (!asked("--print-reference")) return false;
  std::cout << train::config_reference();
  return true;
}

void print_evaluation(const train::Config& config, bool shuffle_images) {
  const train::Evaluation e = train::evaluate_only(config, shuffle_images);
  if (e.classes) {
    for (const std::string& text : train::to_lines(e)) spdlog::info("{}", text);
  }
  nlohmann::json line = train::to_json(e, 0);
  line.erase("step");
  line["shuffled_images"] = shuffle_images;
  line["adapter"] =
      config.lora.init_from ? nlohmann::json(*config.lora.init_from) : nlohmann::json();
  std::cout << line.dump() << "\n";
}

}  // namespace

int command_train(const std::vector<std::string>& arguments) {
  CLI::App parser("Fine-tunes a vision-language model with LoRA on a 4-bit or 16-bit base.",
                  "train");
  TrainArguments a;
  a.add_to(parser);
  if (print_table(arguments) || !parse(parser, arguments)) return 0;
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
  if (a.evaluate) {
    print_evaluation(config, a.shuffle_images);
    return 0;
  }
  catch_signals();
  ops::Profile profile;
  train::TrainerOptions options{
      .folder = {.resume = a.resume, .overwrite = a.overwrite, .allow_changes = a.allow_changes},
      .stop_requested = [] { return stop_signal() != 0; }};
  if (a.profile) options.profile = &profile;
  options.dry_run = a.dry_run;
  options.bar = a.log.bar();
  const train::Outcome outcome = train::train(config, options);
  if (a.dry_run) {
    report_dry_run(a.config);
    return 0;
  }
  if (a.profile) std::cerr << profile.table();
  report_end(a.config, config, outcome);
  if (outcome == train::Outcome::stopped) return static_cast<int>(ExitCode::requeue);
  std::cout << (config.output / "adapter").string() << "\n";
  return 0;
}

}  // namespace medvqa::app
