// The tokenizer of a model's folder; the files of a SentencePiece one are taken apart as
// transformers' LlamaTokenizer does it. Internal to the text module.
#pragma once

#include <filesystem>

#include "src/text/tokenizer_parts.h"

namespace medvqa::text_detail {

// SentencePiece is a tokenizer.json with byte_fallback, or none beside a tokenizer.model; any other
// tokenizer.json is read as by read_tokenizer_file. Errors: UserError(model), one line naming file
// and key.
TokenizerParts read_tokenizer_folder(const std::filesystem::path& folder);

}  // namespace medvqa::text_detail
