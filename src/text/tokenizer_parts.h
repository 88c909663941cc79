// What a tokenizer is made of, and what the readers of its files have in common. Internal to the
// text module.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "src/text/added_tokens.h"
#include "src/text/bpe.h"
#include "src/text/metaspace.h"
#include "src/text/split_regex.h"

namespace medvqa::text_detail {

// What post_processor puts around one text.
struct PostProcessor {
  std::vector<std::int32_t> before, after;
  std::string refused;  // why it cannot be followed; empty if it can
};

struct TokenizerParts {
  bool nfc = false;
  std::vector<SplitRegex> splits;   // applied one after another
  std::optional<Metaspace> spaces;  // instead of the splits; tokens are then spelled as they read
  BpeTables bpe;
  std::vector<std::string> tokens;                    // by id, as the file writes them
  std::unordered_map<std::string, std::int32_t> ids;  // the other way round
  std::vector<AddedToken> added;
  PostProcessor post_processor;
};

// A value in an error's words.
std::string shown(const nlohmann::json& value);

// Reads parts out of one file, whose name it knows for messages. Errors: UserError(model), one line
// naming file and key.
class PartsReader {
 public:
  using Json = nlohmann::json;

  [[noreturn]] void fail(std::string_view key, std::string_view found,
                         std::string_view expected) const;
  std::string read_text() const;
  Json read_json() const;

 protected:
  explicit PartsReader(const std::filesystem::path& path) : name_(path.string()) {}

  const Json& at(const Json& object, std::string_view path, const char* key) const;
  std::string type_of(const Json& object, std::string_view path) const;
  bool flag(const Json& object, std::string_view path, const char* key, bool absent) const;
  std::int32_t checked_id(const Json& value, std::string_view key) const;

  void set_token(std::int32_t id, const std::string& content, std::string_view key);
  void add_merge(std::int32_t rank, const std::string& left, const std::string& right);
  void read_merges(const Json& merges);
  // Flags and content; the id is set_token's business.
  AddedToken added_token(const Json& token, std::string_view path) const;
  void read_added_tokens(const Json& tokens);

  std::string name_;
  TokenizerParts parts_;
};

}  // namespace medvqa::text_detail
