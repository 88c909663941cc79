#include "medvqa/train/run_inputs.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <numeric>
#include <set>

#include "medvqa/io/checkpoint_folder.h"
#include "medvqa/io/hub_cache.h"
#include "medvqa/io/model_config.h"
#include "medvqa/ops/scratch.h"
#include "medvqa/train/lora_targets.h"

namespace medvqa::train {

namespace {

using nn::LinearKind;

DType compute_of(const std::string& name, const ops::DeviceTraits& device) {
  if (name == "f32") return DType::f32;
  if (name == "bf16") return DType::bf16;
  if (name == "f16") return DType::f16;
  return device.compute;
}

bool chosen_by_kind(const LoraConfig& c, LinearKind kind) {
  switch (kind) {
    case LinearKind::vision_attention:
      return c.vision && c.attention;
    case LinearKind::vision_mlp:
      return c.vision && c.mlp;
    case LinearKind::language_attention:
      return c.language && c.attention;
    case LinearKind::language_mlp:
      return c.language && c.mlp;
    case LinearKind::other:
      return false;
  }
  return false;
}

nn::LoraOptions lora_options(const Config& config, const ModelInputs& m) {
  nn::LoraOptions o;
  o.r = m.adapter.r;
  o.scaling = m.adapter.scaling();
  o.dropout = m.adapter.dropout;
  if (m.start) {
    std::set<std::string> names;
    for (const auto& module : m.start->modules()) names.insert(module.first);
    o.adapts = [names](const std::string& name, LinearKind) { return names.contains(name); };
  } else if (config.lora.targets) {
    const LoraTargets targets(*config.lora.targets);
    targets.check(m.config);
    o.adapts = [targets](const std::string& name, LinearKind) { return targets.matches(name); };
  } else {
    o.adapts = [lora = config.lora](const std::string&, LinearKind kind) {
      return chosen_by_kind(lora, kind);
    };
  }
  return o;
}

// The starting adapter's own rank, scaling and modules are kept: it was made with them.
void adopt_start(const Config& config, ModelInputs& m) {
  const auto style = io::name_style_of(m.config.value("model_type", ""));
  m.start.emplace(std::filesystem::path(*config.lora.init_from), style);
  const io::AdapterSettings& s = m.start->settings();
  if (s.r != m.adapter.r || s.alpha != m.adapter.alpha || s.rslora != m.adapter.rslora) {
    spdlog::warn(
        "{}: r={} alpha={} rslora={} are kept; the configuration says r={} alpha={} "
        "rslora={}",
        *config.lora.init_from, s.r, s.alpha, s.rslora, m.adapter.r, m.adapter.alpha,
        m.adapter.rslora);
  }
  m.adapter.r = s.r;
  m.adapter.alpha = s.alpha;
  m.adapter.rslora = s.rslora;
}

// What others call the base: the name config.json carries, the Hub id, or the folder's own name,
// never a path of this machine.
std::string base_model_name(const Config& config, const ModelInputs& m) {
  std::string named = m.config.value("_name_or_path", "");
  if (!named.empty()) return named;
  const std::filesystem::path path(config.model.path);
  return path.is_absolute() ? path.filename().string() : config.model.path;
}

// What config.json alone says about 4-bit storage.
nn::DescribedWeights::Options described(const Config& config, const nlohmann::json& model) {
  nn::DescribedWeights::Options o;
  const nlohmann::json q = model.value("quantization_config", nlohmann::json::object());
  const bool stored_nf4 = q.value("load_in_4bit", false);
  o.nf4 = config.model.quantization == "nf4" || (config.model.quantization == "auto" && stored_nf4);
  o.nested = stored_nf4 ? q.value("bnb_4bit_use_double_quant", false) : config.model.double_quant;
  return o;
}

// The vision models take text alone as well.
void check_task(const std::string& task, const std::string& model_type) {
  if (task == "classification" && model_type != "llama") {
    throw UserError(ExitCode::config,
                    fmt::format("task is classification and model.path a {} model, expected a "
                                "llama model: only its head is trimmed; set task to vqa or text, "
                                "or take a llama model",
                                model_type));
  }
  if (task == "vqa" && model_type == "llama") {
    throw UserError(ExitCode::config,
                    "task is vqa, but a llama model sees no pictures; set task to text and leave "
                    "the pictures out of the data, or set model.path to a vision model");
  }
}

// The rows of the head that are trained: the tokens of the classes. A plan without weights needs
// their number only, and no tokenizer.
std::vector<std::int32_t> head_rows(const DataConfig& config, const std::filesystem::path& folder,
                                    bool need_weights) {
  if (!config.classes) return {};
  if (need_weights) return data::class_tokens(folder, *config.classes);
  std::vector<std::int32_t> rows(config.classes->labels.size());
  std::iota(rows.begin(), rows.end(), 0);
  return rows;
}

data::LengthRule length_rule(const DataConfig& config) {
  return {config.max_length, config.drop_too_long};
}

void add_places(const std::vector<data::Record>& records, const std::vector<std::size_t>& dropped,
                std::vector<std::string>& places) {
  for (const std::size_t i : dropped) places.push_back(records[i].place);
}

}  // namespace

ModelInputs open_model(const Config& config, bool need_weights, const ops::DeviceTraits& device) {
  ModelInputs m;
  m.folder = io::find_model_folder(config.model.path);
  m.config = io::read_model_config(m.folder);
  check_task(config.task, m.config.value("model_type", ""));
  m.config["vision_features"] = config.model.vision_features;
  m.settings.compute = compute_of(config.model.compute, device);
  if (m.settings.compute == DType::bf16 && !ops::has_bf16(device)) {
    throw UserError(ExitCode::config,
                    fmt::format("model.compute is bf16, which {} cannot multiply; set it to f16, "
                                "f32 or auto",
                                device.name));
  }
  m.settings.eight_bit_optimizer = config.train.eight_bit;
  m.settings.head_rows = head_rows(config.data, m.folder, need_weights);
  if (io::has_weights(m.folder)) {
    auto folder = std::make_unique<io::CheckpointFolder>(m.folder);
    if (config.model.quantization == "none" && folder->quantized()) {
      throw UserError(ExitCode::config,
                      fmt::format("model.quantization is none but {} holds 4-bit weights; use auto "
                                  "or a 16-bit checkpoint",
                                  m.folder.string()));
    }
    if (config.model.quantization == "nf4") {
      m.settings.quantize =
          config.model.double_quant ? nn::QuantizeOnLoad::nf4_nested : nn::QuantizeOnLoad::nf4;
    }
    m.source = std::move(folder);
  } else if (need_weights) {
    throw UserError(ExitCode::model,
                    fmt::format("{} has no model.safetensors and no model.safetensors.index.json; "
                                "download the weights into it, or use `medvqa plan`, which needs "
                                "config.json only",
                                m.folder.string()));
  } else {
    m.source = std::make_unique<nn::DescribedWeights>(described(config, m.config));
  }
  m.adapter = {.r = config.lora.r,
               .alpha = config.lora.alpha,
               .dropout = config.lora.dropout,
               .rslora = config.lora.rslora,
               .base_model = base_model_name(config, m)};
  if (config.lora.init_from) adopt_start(config, m);
  m.settings.lora = lora_options(config, m);
  return m;
}

void prepare_validation(DataInputs& inputs, const DataConfig& config) {
  std::vector<data::Record>& records = inputs.validation_records;
  inputs.validation =
      data::prepare_dataset(*inputs.processor, records, length_rule(config), config.threads);
  add_places(records, inputs.validation.too_long, inputs.validation_too_long);
  // By place: an id is unique inside its source only.
  const std::set<std::size_t> dropped(inputs.validation.too_long.begin(),
                                      inputs.validation.too_long.end());
  std::vector<data::Record> kept;
  for (std::size_t i = 0; i < records.size(); ++i) {
    if (!dropped.contains(i)) kept.push_back(std::move(records[i]));
  }
  records = std::move(kept);
}

std::unique_ptr<data::Processor> open_processor(const DataConfig& config,
                                                const ModelInputs& model) {
  return data::make_processor(model.folder, model.config,
                              {.prompt = config.prompt,
                               .min_pixels = config.min_pixels,
                               .max_pixels = config.max_pixels,
                               .classes = config.classes});
}

DataInputs open_data(const Config& config, const ModelInputs& model) {
  DataInputs d;
  d.objective = make_objective(config.data);
  d.processor = open_processor(config.data, model);
  data::Records records = data::read_records(config.data.train);
  d.dropped = records.dropped;
  std::vector<data::Record> train = std::move(records.rows);
  if (config.data.validation_fraction) {
    data::Split split = data::hold_out_images(std::move(train), *config.data.validation_fraction,
                                              config.train.seed);
    train = std::move(split.train);
    d.validation_records = std::move(split.validation);
  } else if (!config.data.validation.empty()) {
    data::Records validation = data::read_records(config.data.validation);
    d.validation_records = std::move(validation.rows);
    for (const auto& reason : validation.dropped) d.dropped[reason.first] += reason.second;
  }
  d.train =
      data::prepare_dataset(*d.processor, train, length_rule(config.data), config.data.threads);
  add_places(train, d.train.too_long, d.train_too_long);
  if (!d.validation_records.empty()) prepare_validation(d, config.data);
  return d;
}

MicroBatch make_micro_batch(data::Batch batch) {
  MicroBatch m;
  m.input.ids = std::move(batch.ids);
  m.input.cu_seqlens = std::move(batch.cu_seqlens);
  m.input.patches = std::move(batch.patches);
  m.input.patch_rows = batch.patch_rows;
  for (const PatchGrid& g : batch.grids) m.input.grids.push_back({g.t, g.h, g.w});
  m.labels = std::move(batch.labels);
  m.classes = std::move(batch.classes);
  m.sample_ids = std::move(batch.sample_ids);
  m.find_logit_rows();
  return m;
}

MicroBatch dry_micro_batch(const data::Processor& processor, const data::Dataset& dataset,
                           const std::vector<std::int64_t>& indices) {
  std::vector<const data::Example*> examples;
  examples.reserve(indices.size());
  for (const std::int64_t i : indices) {
    examples.push_back(&dataset.examples.at(static_cast<std::size_t>(i)));
  }
  return make_micro_batch(data::pack(processor, examples, false));
}

}  // namespace medvqa::train
