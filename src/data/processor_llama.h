// The processor of LLaMA 3, which has text only. Internal to the data module; make_processor makes
// it.
#pragma once

#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>

#include "medvqa/data/processor.h"

namespace medvqa::data {

std::unique_ptr<Processor> make_llama_processor(const std::filesystem::path& model_folder,
                                                const nlohmann::json& config,
                                                const ProcessorOptions& options);

}  // namespace medvqa::data
