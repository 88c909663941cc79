// tokenizer.json, checked and taken apart. Internal to the text module.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <unordered_map>
#include <vector>

#include "src/text/added_tokens.h"
#include "src/text/bpe.h"
#include "src/text/split_regex.h"

namespace medvqa::text_detail {

// What post_processor puts around one text.
struct PostProcessor {
  std::vector<std::int32_t> before, after;
  std::string refused;  // why it cannot be followed; empty if it can
};

struct TokenizerParts {
  bool nfc = false;
  std::vector<SplitRegex> splits;  // applied one after another
  BpeTables bpe;
  std::vector<std::string> tokens;                    // by id, as the file writes them
  std::unordered_map<std::string, std::int32_t> ids;  // the other way round
  std::vector<AddedToken> added;
  PostProcessor post_processor;
};

// `value` is null, ByteLevel, TemplateProcessing or a Sequence of them; `name` begins messages.
PostProcessor read_post_processor(const nlohmann::json& value, const std::string& name);

// Errors: UserError(model), one line naming file and key.
TokenizerParts read_tokenizer_file(const std::filesystem::path& path);

}  // namespace medvqa::text_detail
