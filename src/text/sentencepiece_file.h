// The files of a SentencePiece tokenizer in a model's folder, taken apart as transformers'
// LlamaTokenizer does it. Internal to the text module.
#pragma once

#include <filesystem>

#include "src/text/tokenizer_parts.h"

namespace medvqa::text_detail {

bool is_sentencepiece_folder(const std::filesystem::path& folder);

// Errors: UserError(model), one line naming file and key.
TokenizerParts read_sentencepiece_folder(const std::filesystem::path& folder);

}  // namespace medvqa::text_detail
