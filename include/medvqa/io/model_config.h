// config.json in one form, whatever wrote it.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>

namespace medvqa::io {

// Reads FOLDER/config.json or the given file. UserError(ExitCode::model) if it is missing or wrong.
//
// The form is that of transformers 5:
//   model_type, dtype ("bfloat16"), tie_word_embeddings (bool, always there), token ids of a
//   vision-language model (image_token_id, image_token_index, vision_start_token_id, ...),
//   quantization_config if the file has one,
//   text_config    every key of the language model, for text-only models too
//   vision_config  as in the file, only for vision-language models
// In text_config and vision_config, `rope_parameters` {rope_type, rope_theta, and what the type
// needs: mrope_section; factor, low_freq_factor, ...} replaces rope_theta and rope_scaling.
// rope_type "mrope" and an absent type become "default". `dtype` replaces torch_dtype. Missing keys
// that transformers would fill with a class default stay missing: they are the model's business.
nlohmann::json read_model_config(const std::filesystem::path& folder_or_file);

// The same from a parsed file; `where` names it in errors.
nlohmann::json normalized_config(nlohmann::json config, const std::string& where);

}  // namespace medvqa::io
