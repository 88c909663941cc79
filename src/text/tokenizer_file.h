// tokenizer.json, checked and taken apart. Internal to the text module.
#pragma once

#include <filesystem>

#include "src/text/tokenizer_parts.h"

namespace medvqa::text_detail {

// Errors: UserError(model), one line naming file and key.
TokenizerParts read_tokenizer_file(const std::filesystem::path& path);

}  // namespace medvqa::text_detail
