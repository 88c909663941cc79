// The processor of mllama (Llama 3.2 Vision). Internal to the data module; make_processor makes it.
#pragma once

#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>

#include "medvqa/data/processor.h"
#include "medvqa/image/mllama_processor.h"

namespace medvqa::data {

std::unique_ptr<Processor> make_mllama_processor(const std::filesystem::path& model_folder,
                                                 const nlohmann::json& config,
                                                 const ProcessorOptions& options);

// From the processor's file, or without one from config.json; options.max_pixels then lowers the
// number of tiles. UserError(ExitCode::model) where the two files contradict each other,
// UserError(ExitCode::config) for options mllama has no use for.
MllamaImageConfig read_mllama_image_config(const std::filesystem::path& model_folder,
                                           const nlohmann::json& config,
                                           const ProcessorOptions& options);

}  // namespace medvqa::data
