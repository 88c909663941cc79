#include "medvqa/train/export.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include "medvqa/io/sha256.h"
#include "medvqa/train/adapter_files.h"
#include "medvqa/train/model_tensors.h"
#include "src/train/export_source.h"

namespace medvqa::train {

namespace fs = std::filesystem;

namespace {

// An adapter that changes nothing makes an export that is the base under another name.
io::LinearSizes check_adapter(const ExportSource& source) {
  const io::LinearSizes linears = linears_of(model_tensors(source.config));
  const io::AdapterProof proof = io::check_modules(source.adapter, linears);
  const std::string where = source.adapter.path().string();
  if (proof.zero_b.size() == proof.modules) {
    throw UserError(
        ExitCode::model,
        fmt::format("{}: every lora_B is zero, so the adapter changes nothing; expected "
                    "a trained one",
                    where));
  }
  if (!proof.zero_b.empty()) {
    spdlog::warn("{}: lora_B is zero for {} of {} linears, which stay as they are; the first is {}",
                 where, proof.zero_b.size(), proof.modules, proof.zero_b.front());
  }
  io::LinearSizes adapted;
  for (const auto& module : source.adapter.modules()) {
    adapted[module.first] = linears.at(module.first);
  }
  return adapted;
}

void export_adapter(const ExportRequest& request, const ExportSource& source,
                    const io::LinearSizes& expected) {
  std::vector<std::vector<float>> values;
  values.reserve(2 * expected.size());
  io::AdapterToWrite w;
  for (const auto& [name, module] : source.adapter.modules()) {
    io::AdapterMatrices m;
    m.module = name;
    m.in = module.a.shape[1];
    m.out = module.b.shape[0];
    m.a = values.emplace_back(host_values(module.a));
    m.b = values.emplace_back(host_values(module.b));
    w.modules.push_back(m);
  }
  w.settings = source.adapter.settings();
  w.settings.base_model = source.base_name;
  w.name_style = io::name_style_of(source.config.value("model_type", ""));
  w.key_style = request.key_style;
  w.card = export_card(request, source);
  w.base_folder = source.base;
  w.source_folder = source.adapter.path();
  w.add_files = [&](const fs::path& folder) {
    if (!source.head) return;
    const io::MappedFile head(source.adapter.path() / io::kHeadFile);
    io::write_file_atomically(folder / io::kHeadFile, head.bytes());
    write_full_head(folder, *source.head, source.config);
  };
  io::write_peft_adapter(request.out, w);
  io::prove_peft_adapter(request.out, w.name_style, expected);
}

bool export_merged(const ExportRequest& request, const ExportSource& source) {
  io::AtomicFolder target(request.out);
  if (!write_merged(request, source, target)) return false;
  io::ModelCard card = export_card(request, source);
  const io::AdapterSettings& s = source.adapter.settings();
  card.library = "transformers";
  card.description =
      fmt::format("{} with a LoRA adapter (r = {}, alpha = {:g}{}) merged into its weights.",
                  source.base_name, s.r, s.alpha, s.rslora ? ", rank-stabilised" : "");
  target.write("README.md", io::model_card_text(card));
  io::copy_model_files(target, {source.base, source.adapter.path()}, source.licence,
                       {"generation_config.json"});
  io::write_manifest(target.aside());
  target.commit();
  return true;
}

// What whoever hands the export on has to know.
void tell_terms(const ExportRequest& request, const ExportSource& source) {
  const io::Licence& l = source.licence;
  if (!l.llama()) {
    spdlog::info("licence: {}", l.id.empty() ? "not known; the base's terms hold" : l.id);
    return;
  }
  const std::string name = fs::absolute(request.out / "").parent_path().filename().string();
  spdlog::warn("licence: {}; README.md and NOTICE say so{}", l.name,
               l.built_with.empty() ? "" : ", and a page that shows it must: " + l.built_with);
  if (!l.built_with.empty() && !name.starts_with("Llama")) {
    spdlog::warn(
        "licence: the name of a model made from {} begins with Llama when it is handed "
        "on; this one is called {}",
        l.id, name);
  }
  bool has_text = false;
  for (const char* file : {"LICENSE", "LICENSE.txt", "LICENSE.md"}) {
    has_text = has_text || fs::exists(request.out / file);
  }
  if (!has_text) {
    spdlog::warn("licence: {} has no LICENSE; put Meta's text into {} before it is handed on",
                 source.base.string(), request.out.string());
  }
  if (l.not_in_the_eu) {
    spdlog::warn(
        "licence: Meta grants no rights in Llama 3.2's vision models to individuals "
        "domiciled, or companies with their principal place of business, in the European "
        "Union");
  }
}

}  // namespace

bool export_model(const ExportRequest& request) {
  const ExportSource source = open_export_source(request);
  const io::LinearSizes adapted = check_adapter(source);
  io::remove_leftovers_of(request.out);
  if (request.form == ExportForm::merged) {
    if (!export_merged(request, source)) return false;
  } else {
    export_adapter(request, source, adapted);
  }
  tell_terms(request, source);
  return true;
}

}  // namespace medvqa::train
