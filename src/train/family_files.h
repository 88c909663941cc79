// What the text and image files of a random checkpoint say, by family. Internal to the module.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

namespace medvqa::train {

// A special token, its published id, and the key of config.json that holds it, if any.
struct SpecialToken {
  const char* text;
  std::int64_t published;
  const char* key;
};

struct FamilyFiles {
  std::span<const SpecialToken> tokens;  // in the order of their published ids
  std::int64_t published_vocabulary = 0;
  const char* split = nullptr;  // regular expression before byte-level BPE
  bool nfc = false;
  bool ignore_merges = false;
  const char* begin = nullptr;  // what the tokenizer puts before a text
  nlohmann::json tokenizer_settings;
  nlohmann::json processor_settings;       // null without pictures
  std::vector<std::string> dense_linears;  // llm_int8_skip_modules of a 4-bit checkpoint
};

// By the model_type of config.json in either spelling.
FamilyFiles family_files(const nlohmann::json& config);

}  // namespace medvqa::train
