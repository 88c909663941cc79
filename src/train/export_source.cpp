#include "src/train/export_source.h"

#include <fmt/format.h>

#include "medvqa/io/hub_cache.h"
#include "medvqa/io/json.h"
#include "medvqa/io/model_config.h"
#include "medvqa/io/sha256.h"
#include "medvqa/train/run_folder.h"

namespace medvqa::train {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr const char* kRunConfig = "config.resolved.json";

// What of a run's configuration an export needs.
struct TrainedOn {
  std::string base;
  nn::QuantizeOnLoad quantize = nn::QuantizeOnLoad::no;
};

TrainedOn trained_on(const fs::path& run) {
  const fs::path file = run / kRunConfig;
  if (!fs::exists(file)) {
    throw UserError(ExitCode::config,
                    fmt::format("--run {}: no {} in it; name the output folder of a run, or a PEFT "
                                "folder with --adapter",
                                run.string(), kRunConfig));
  }
  const json config = io::read_json_file(file);
  const io::JsonObject model = io::JsonObject(config, file.string()).object("model");
  TrainedOn t;
  t.base = model.string("path");
  if (model.string_or("quantization", "auto") == "nf4") {
    t.quantize = model.boolean_or("double_quant", true) ? nn::QuantizeOnLoad::nf4_nested
                                                        : nn::QuantizeOnLoad::nf4;
  }
  if (!fs::exists(run / "adapter" / "adapter_model.safetensors")) {
    throw UserError(ExitCode::model,
                    fmt::format("--run {}: no adapter in it, so the run is not finished; go on "
                                "with medvqa train --resume auto",
                                run.string()));
  }
  return t;
}

std::string base_in_adapter(const fs::path& adapter) {
  const fs::path file = adapter / "adapter_config.json";
  if (!fs::exists(file)) {
    throw UserError(ExitCode::model,
                    fmt::format("{} is missing: not the folder of a PEFT adapter", file.string()));
  }
  const json config = io::read_json_file(file, {.code = ExitCode::model});
  return io::JsonObject(config, file.string(), ExitCode::model)
      .string_or("base_model_name_or_path", "");
}

fs::path find_base(const std::string& name, const fs::path& named_in) {
  std::string problem;
  try {
    const fs::path folder = io::find_model_folder(name);
    if (fs::exists(folder / "config.json")) return folder;
    problem = fmt::format("{} has no config.json", fs::absolute(folder).string());
  } catch (const UserError& error) {
    problem = error.what();
  }
  throw UserError(ExitCode::model,
                  fmt::format("the base of {} is not found: {}; say where it lies with --base",
                              named_in.string(), problem));
}

bool lies_in(const fs::path& inner, const fs::path& outer) {
  const fs::path relative = inner.lexically_relative(outer);
  return !relative.empty() && *relative.begin() != "..";
}

fs::path true_path(const fs::path& path) {
  fs::path p = fs::weakly_canonical(fs::absolute(path));
  return p.has_filename() ? p : p.parent_path();
}

void check_output(const ExportRequest& request, const std::vector<fs::path>& inputs) {
  const auto refuse = [&](const std::string& problem) {
    throw UserError(ExitCode::config, fmt::format("--out {}: {}", request.out.string(), problem));
  };
  const fs::path out = true_path(request.out);
  for (const fs::path& input : inputs) {
    const fs::path in = true_path(input);
    if (!lies_in(out, in) && !lies_in(in, out)) continue;
    refuse(fmt::format("{} {}, which is read; choose a folder elsewhere",
                       lies_in(out, in) ? "lies in" : "holds", input.string()));
  }
  if (!is_used(out)) return;
  if (!request.overwrite) {
    refuse("is not empty; replace an earlier export with --overwrite, or choose another folder");
  }
  const bool is_export =
      fs::exists(out / "manifest.json") &&
      (fs::exists(out / "config.json") || fs::exists(out / "adapter_config.json"));
  if (is_export) return;
  refuse("holds no earlier export, and --overwrite replaces nothing else; choose another folder");
}

// The matrices are those that were written; a card may have been edited since.
void check_weights(const fs::path& adapter) {
  const char* weights = "adapter_model.safetensors";
  const fs::path file = adapter / "manifest.json";
  if (!fs::exists(file) || !fs::exists(adapter / weights)) return;
  const json manifest = io::read_json_file(file, {.code = ExitCode::model});
  const io::JsonObject files =
      io::JsonObject(manifest, file.string(), ExitCode::model).object("files");
  if (files.object(weights).string("sha256") == io::sha256_of_file(adapter / weights)) return;
  throw UserError(ExitCode::model,
                  fmt::format("{} was altered after it was written: its hash is not the one in {}",
                              (adapter / weights).string(), file.string()));
}

std::string public_name(const std::string& named, const fs::path& folder, const json& config) {
  const std::string own = config.value("_name_or_path", "");
  for (const std::string& name : {named, own}) {
    const bool usable = !name.empty() && name.front() != '.' && !fs::path(name).is_absolute();
    if (usable) return name;
  }
  return true_path(folder).filename().string();
}

}  // namespace

ExportSource open_export_source(const ExportRequest& request) {
  const bool from_run = !request.run.empty();
  const fs::path folder = from_run ? request.run / "adapter" : request.adapter;
  TrainedOn trained;
  if (from_run) trained = trained_on(request.run);
  std::string base_name = request.base;
  if (base_name.empty()) base_name = from_run ? trained.base : base_in_adapter(folder);
  const fs::path base = find_base(base_name, from_run ? request.run : folder);
  check_output(request, {base, folder});
  json config = io::read_model_config(base);
  check_weights(folder);
  io::PeftAdapter adapter(folder, io::name_style_of(config.value("model_type", "")));
  std::string name = public_name(adapter.settings().base_model, base, config);
  io::Licence licence = io::find_licence(base, config, name);
  return {.base = base,
          .config = std::move(config),
          .base_name = std::move(name),
          .adapter = std::move(adapter),
          .head = io::read_classifier_head(folder),
          .licence = std::move(licence),
          .quantize = request.quantize.value_or(trained.quantize)};
}

io::ModelCard export_card(const ExportRequest& request, const ExportSource& source) {
  io::ModelCard card;
  card.title = true_path(request.out).filename().string();
  card.base_model = source.base_name;
  card.licence = source.licence;
  card.sections = io::card_sections(source.adapter.path() / "README.md");
  card.tags = {"medical"};
  if (source.config.contains("vision_config")) {
    card.tags.push_back("visual-question-answering");
  } else {
    card.pipeline_tag = source.head ? "text-classification" : "text-generation";
  }
  if (request.form == ExportForm::adapter) card.tags.insert(card.tags.begin(), "lora");
  return card;
}

}  // namespace medvqa::train
