// Qwen2-VL's image processor as its checkpoint describes it. Internal to the data module.
#pragma once

#include <filesystem>

#include "medvqa/data/processor.h"
#include "medvqa/image/qwen2_vl_processor.h"

namespace medvqa::data {

// "image_processor" of processor_config.json, else preprocessor_config.json, else the defaults of
// transformers 5.17's class; then the options' pixels. UserError(ExitCode::model) names file and
// key; UserError(ExitCode::config) if the options contradict the rest.
Qwen2VlImageConfig read_qwen2_vl_image_config(const std::filesystem::path& model_folder,
                                              const ProcessorOptions& options);

}  // namespace medvqa::data
