// The one table of configuration keys: the parser, the checks and the help are read from it.
// Meaning of the keys: the doc line of each; names and defaults are a
// promise to users and to programs that write configurations.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

namespace medvqa::train {

enum class KeyKind : std::uint8_t {
  boolean,
  integer,
  number,
  text,
  choice,
  path,        // resolved against the file it stands in
  sources,     // list of {"format", "path", "split"}
  validation,  // {"fraction", "by"} or sources
  texts,       // object of strings, whose order counts
};

struct ConfigKey {
  const char* path;  // "train.seed"
  KeyKind kind;
  const char* fallback;  // JSON; empty: required
  bool nullable;
  double lowest, highest;            // of numbers, inclusive
  std::vector<const char*> choices;  // of a choice
  const char* doc;
};

std::span<const ConfigKey> config_keys();
const ConfigKey* find_key(const std::string& path);
// The known key nearest to `path` by edit distance, for "did you mean".
std::string nearest_key(const std::string& path);

// UserError(ExitCode::config) if `value` is not one `key` takes; `where` names file or flag.
void check_value(const ConfigKey& key, const nlohmann::ordered_json& value,
                 const std::string& where);

}  // namespace medvqa::train
