// tokenizer.json, checked and taken apart. Internal to the text module.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <unordered_map>
#include <vector>

#include "src/text/added_tokens.h"
#include "src/text/bpe.h"
#include "src/text/split_regex.h"

namespace medvqa::text_detail {

struct TokenizerParts {
  bool nfc = false;
  std::vector<SplitRegex> splits;  // applied one after another
  BpeTables bpe;
  std::vector<std::string> tokens;                    // by id, as the file writes them
  std::unordered_map<std::string, std::int32_t> ids;  // the other way round
  std::vector<AddedToken> added;
};

// Errors: UserError(model), one line naming file and key.
TokenizerParts read_tokenizer_file(const std::filesystem::path& path);

}  // namespace medvqa::text_detail
