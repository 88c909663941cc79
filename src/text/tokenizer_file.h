// tokenizer.json, checked and taken apart. Internal to the text module.
#pragma once

#include <filesystem>

#include "src/text/tokenizer_parts.h"

namespace medvqa::text_detail {

// `value` is null, ByteLevel, TemplateProcessing or a Sequence of them; `name` begins messages.
PostProcessor read_post_processor(const nlohmann::json& value, const std::string& name);

// Errors: UserError(model), one line naming file and key.
TokenizerParts read_tokenizer_file(const std::filesystem::path& path);
// The same of a file that is parsed already; `path` begins messages.
TokenizerParts read_tokenizer_json(const std::filesystem::path& path, const nlohmann::json& file);

}  // namespace medvqa::text_detail
