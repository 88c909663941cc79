// Everything a run reads before it touches device memory: configuration, model folder, data.
#pragma once

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "medvqa/data/dataset.h"
#include "medvqa/io/peft_adapter.h"
#include "medvqa/nn/weights.h"
#include "medvqa/train/adapted_model.h"
#include "medvqa/train/config.h"
#include "medvqa/train/micro_batch.h"
#include "medvqa/train/objective.h"

namespace medvqa::train {

// The model a configuration names. Without weights in the folder `source` only describes them.
struct ModelInputs {
  std::filesystem::path folder;
  nlohmann::json config;  // in the form of io/model_config.h
  std::unique_ptr<nn::WeightSource> source;
  std::optional<io::PeftAdapter> start;  // lora.init_from
  ModelSettings settings;
  io::AdapterSettings adapter;
};

// `need_weights`: UserError(ExitCode::model) if the folder has only a config.json. `device` says
// what model.compute auto means.
ModelInputs open_model(const Config& config, bool need_weights,
                       const ops::DeviceTraits& device = {});

struct DataInputs {
  std::shared_ptr<const Objective> objective;
  std::unique_ptr<data::Processor> processor;
  std::vector<data::Record> validation_records;  // one a validation example
  data::Dataset train, validation;
  data::Dropped dropped;
  // Where the records stand that data.too_long dropped: "FILE, row N".
  std::vector<std::string> train_too_long, validation_too_long;
};

DataInputs open_data(const Config& config, const ModelInputs& model);

// Prepares `validation` from `validation_records`, and takes out of these what is too long.
void prepare_validation(DataInputs& inputs, const DataConfig& config);

// What makes samples of a configuration's records.
std::unique_ptr<data::Processor> open_processor(const DataConfig& config, const ModelInputs& model);

// Samples of `dataset` packed into a micro-batch; without patches it serves dry runs.
MicroBatch make_micro_batch(data::Batch batch);
MicroBatch dry_micro_batch(const data::Processor& processor, const data::Dataset& dataset,
                           const std::vector<std::int64_t>& indices);

}  // namespace medvqa::train
