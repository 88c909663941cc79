#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <map>

#include "medvqa/app/arguments.h"
#include "medvqa/app/commands.h"
#include "medvqa/app/signals.h"
#include "medvqa/train/export.h"

namespace medvqa::app {

namespace {

struct ExportArguments {
  train::ExportRequest request;
  std::string run, adapter, out;
  std::string form = "merged", key_style = "current", dtype, quantization;
  LogArguments log;

  void add_to(CLI::App& parser);
  // UserError(ExitCode::usage) for options that do not go together.
  void read(const CLI::App& parser);
};

void ExportArguments::add_to(CLI::App& parser) {
  auto* run_option = parser.add_option("--run", run, "output folder of a finished run");
  parser.add_option("--adapter", adapter, "PEFT folder instead")->excludes(run_option);
  parser.add_option("--base", request.base,
                    "base model's folder or Hub id; default: as the run or the adapter names it");
  parser.add_option("--out", out, "folder to make")->required();
  parser.add_option("--form", form, "merged (a 16-bit checkpoint) or adapter (a PEFT folder)")
      ->check(CLI::IsMember({"merged", "adapter"}))
      ->capture_default_str();
  parser
      .add_option("--key-style", key_style,
                  "form adapter: current, or legacy for transformers before 4.52")
      ->check(CLI::IsMember({"current", "legacy"}))
      ->capture_default_str();
  parser.add_option("--dtype", dtype, "form merged: bf16 or f16; default: the base's")
      ->check(CLI::IsMember({"bf16", "f16"}));
  parser
      .add_option("--max-shard-size", request.max_shard_bytes,
                  "form merged: of one weights file, as 5GB or 500MB; default 5GB")
      ->transform(CLI::AsSizeValue(true))
      ->check(CLI::PositiveNumber);
  parser
      .add_option("--quantization", quantization,
                  "form merged: the base the adapter was trained on: none (as its files are), nf4 "
                  "or nf4-plain (not nested) on load; default: as the run says, else none")
      ->check(CLI::IsMember({"none", "nf4", "nf4-plain"}));
  parser.add_flag("--overwrite", request.overwrite, "replace an earlier export in --out");
  log.add_to(parser);
  parser.footer(
      "Examples:\n"
      "  medvqa export --run runs/a --out Llama-3.2-11B-chest\n"
      "  medvqa export --adapter runs/a/adapter --base models/base --out merged --dtype f16\n"
      "  medvqa export --run runs/a --out legacy --form adapter --key-style legacy");
}

void ExportArguments::read(const CLI::App& parser) {
  if (run.empty() == adapter.empty()) {
    throw UserError(ExitCode::usage, "export: give one of --run and --adapter");
  }
  const bool merged = form == "merged";
  const std::vector<const char*> of_other_form =
      merged ? std::vector<const char*>{"--key-style"}
             : std::vector<const char*>{"--dtype", "--max-shard-size", "--quantization"};
  for (const char* option : of_other_form) {
    if (parser.count(option) == 0) continue;
    throw UserError(ExitCode::usage, fmt::format("export: {} has no meaning with --form {}; leave "
                                                 "one of them out",
                                                 option, form));
  }
  const std::map<std::string, nn::QuantizeOnLoad> kinds{{"none", nn::QuantizeOnLoad::no},
                                                        {"nf4", nn::QuantizeOnLoad::nf4_nested},
                                                        {"nf4-plain", nn::QuantizeOnLoad::nf4}};
  request.run = run;
  request.adapter = adapter;
  request.out = out;
  request.form = merged ? train::ExportForm::merged : train::ExportForm::adapter;
  request.key_style = key_style == "legacy" ? io::KeyStyle::legacy : io::KeyStyle::current;
  if (!dtype.empty()) request.dtype = dtype == "f16" ? DType::f16 : DType::bf16;
  if (!quantization.empty()) request.quantize = kinds.at(quantization);
}

}  // namespace

int command_export(const std::vector<std::string>& arguments) {
  CLI::App parser(
      "Makes a trained adapter ready for others: merged into its base as a 16-bit checkpoint, or "
      "as a PEFT folder. What was written is read back and proven.",
      "export");
  ExportArguments a;
  a.add_to(parser);
  if (!parse(parser, arguments)) return 0;
  a.log.apply();
  a.read(parser);
  catch_signals();
  a.request.stop_requested = [] { return stop_signal() != 0; };
  if (!train::export_model(a.request)) {
    spdlog::warn("stopped on a signal; nothing was written");
    return 128 + stop_signal();
  }
  std::cout << a.out << "\n";
  return 0;
}

}  // namespace medvqa::app
