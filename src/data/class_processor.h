// Texts with a class: the prompt as it stands, without a chat template. Internal to the data
// module; make_processor makes it.
#pragma once

#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>

#include "medvqa/data/processor.h"

namespace medvqa::data {

// `options.classes` is given. Special tokens stand around a text as Tokenizer::special_tokens says.
std::unique_ptr<Processor> make_class_processor(const std::filesystem::path& model_folder,
                                                const nlohmann::json& config,
                                                const ProcessorOptions& options);

}  // namespace medvqa::data
