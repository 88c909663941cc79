// What an export reads, and where it may write. Internal to the module.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "medvqa/io/classifier_head.h"
#include "medvqa/io/licence.h"
#include "medvqa/io/peft_adapter.h"
#include "medvqa/train/export.h"

namespace medvqa::train {

struct ExportSource {
  std::filesystem::path base;
  nlohmann::json config;  // the base's, in the form of io/model_config.h
  std::string base_name;  // what others call it, never a path of this machine
  io::PeftAdapter adapter;
  std::optional<io::ClassifierHead> head;
  io::Licence licence;
  nn::QuantizeOnLoad quantize = nn::QuantizeOnLoad::no;
};

// Finds adapter and base, and refuses an `out` that is one of them, in one of them, or not empty
// (ExitCode::config). UserError(ExitCode::model) for an adapter or base that is not there.
ExportSource open_export_source(const ExportRequest& request);

// Title, base, licence and kind of the model, with the sections of the adapter's own card.
io::ModelCard export_card(const ExportRequest& request, const ExportSource& source);

// Writes the checkpoint into target.aside() and proves it. False if asked to stop.
bool write_merged(const ExportRequest& request, const ExportSource& source,
                  io::AtomicFolder& target);

// The head as a row of the whole vocabulary each: lm_head.weight f32 [V, C], zero but for the
// classes' rows, and lm_head.bias f32 [V], -1000 but 0 there: the softmax over V is then the
// classes' alone.
void write_full_head(const std::filesystem::path& folder, const io::ClassifierHead& head,
                     const nlohmann::json& config);

// config.json of the merged checkpoint from the base's own text.
nlohmann::json merged_config(const ExportSource& source, DType dtype);

}  // namespace medvqa::train
