// The processor of Qwen2-VL. Internal to the data module; make_processor makes it.
#pragma once

#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>

#include "medvqa/data/processor.h"

namespace medvqa::data {

std::unique_ptr<Processor> make_qwen2_vl_processor(const std::filesystem::path& model_folder,
                                                   const nlohmann::json& config,
                                                   const ProcessorOptions& options);

}  // namespace medvqa::data
