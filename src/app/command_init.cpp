#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <iostream>

#include "medvqa/app/arguments.h"
#include "medvqa/app/commands.h"
#include "medvqa/io/json.h"
#include "medvqa/train/random_checkpoint.h"

namespace medvqa::app {

int command_init(const std::vector<std::string>& arguments) {
  CLI::App parser("Writes a random checkpoint in Hugging Face layout.", "init");
  std::string model_config, preset, out, tokenizer;
  std::string quantization = "none";
  train::RandomCheckpoint request;
  LogArguments log;
  auto* config_option = parser.add_option("--model-config", model_config, "config.json to follow");
  auto* preset_option = parser.add_option(
      "--preset", preset, fmt::format("{}", fmt::join(train::preset_names(), ", ")));
  config_option->excludes(preset_option);
  parser.add_option("--out", out, "folder to make")->required();
  parser.add_option("--seed", request.seed, "of the values, default 0");
  parser.add_option("--quantization", quantization, "none (bf16) or nf4")
      ->check(CLI::IsMember({"none", "nf4"}));
  parser.add_option("--tokenizer", tokenizer,
                    "folder whose tokenizer and processor files are copied; default: bytes and the "
                    "family's special tokens");
  log.add_to(parser);
  parser.footer(
      "Example:\n  medvqa init --preset tiny-qwen2-vl --quantization nf4 --out "
      "models/tiny-qwen2-vl");
  if (!parse(parser, arguments)) return 0;
  log.apply();
  if (model_config.empty() == preset.empty()) {
    throw UserError(ExitCode::usage, "init: give one of --model-config and --preset");
  }
  request.config = preset.empty() ? io::read_json_file(model_config, {.code = ExitCode::model})
                                  : train::preset_config(preset);
  request.out = out;
  request.nf4 = quantization == "nf4";
  if (!tokenizer.empty()) request.tokenizer = tokenizer;
  train::write_random_checkpoint(request);
  std::cout << out << "\n";
  return 0;
}

}  // namespace medvqa::app
