// Adapters between device memory and PEFT folders.
#pragma once

#include <filesystem>

#include "medvqa/train/evaluate.h"
#include "medvqa/train/run_inputs.h"

namespace medvqa::train {

// A matrix of an adapter in f32.
std::vector<float> host_values(const nn::HostTensor& t);

// The head of a classification beside its adapter, [tokens, channels]. UserError(ExitCode::model)
// if it has other tokens, in another order, or other channels.
std::vector<float> read_head(const std::filesystem::path& folder,
                             std::span<const std::int32_t> tokens, std::int64_t channels);

// Uploads the starting adapter, and its head if the model's is trained and the folder has one.
// UserError(ExitCode::model) for a module the model lacks or of another shape, naming it.
void load_adapter(ops::Backend& backend, const io::PeftAdapter& adapter, AdaptedModel& model);

struct AdapterSummary {
  io::AdapterSettings settings;
  std::filesystem::path base_folder;
  std::string model_type;
  std::optional<data::Classes> classes;  // of a trained head
  io::ModelCard card;
};

// Writes the folder, reopens it and proves it: every key names an adapted module of the right
// shape, and a trained head comes back. Returns the modules whose B is still zero, which change
// nothing.
std::vector<std::string> save_adapter(ops::Backend& backend, const AdaptedModel& model,
                                      const std::filesystem::path& folder,
                                      const AdapterSummary& summary);

// Largest difference of the logits of `batch` with and without the adapter; the adapter is as
// before afterwards.
double effect_on_logits(ops::Backend& backend, Arenas& arenas, const AdaptedModel& model,
                        const MicroBatch& batch);

// Recipe, data and scores for the model card.
io::ModelCard model_card(const Config& config, const ModelInputs& model, std::int64_t steps,
                         const std::optional<Evaluation>& evaluation);

}  // namespace medvqa::train
