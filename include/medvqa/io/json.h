// JSON from files nobody vouches for: strict, without duplicate keys, of bounded depth, and typed
// access whose errors name file, key, what was found and what was expected.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "medvqa/core/error.h"

namespace medvqa::io {

struct JsonRules {
  ExitCode code = ExitCode::config;
  bool comments = false;  // accept // and /* */
  int max_depth = 64;
};

// `name` is what errors call the text. UserError(rules.code) with line and column for wrong syntax,
// with the key's path for a duplicate, for nesting deeper than allowed.
nlohmann::json parse_json(std::string_view text, const std::string& name, JsonRules rules = {});
nlohmann::json read_json_file(const std::filesystem::path& path, JsonRules rules = {});
// The same with the keys of objects in the order of the file.
nlohmann::ordered_json read_ordered_json_file(const std::filesystem::path& path,
                                              JsonRules rules = {});

// "a string", "the number 3": for messages.
std::string describe_json(const nlohmann::json& value);

// Typed look at the members of one object. Keeps a reference to it. The overloads with a fallback
// take it when the key is missing or null; the others then fail, as all do on a wrong type.
class JsonObject {
 public:
  // UserError(code) if `value` is no object. `where` begins messages: a file, or "FILE: section".
  JsonObject(const nlohmann::json& value, std::string where, ExitCode code = ExitCode::config);

  bool has(const char* key) const;  // present and not null
  const nlohmann::json& at(const char* key) const;
  JsonObject object(const char* key) const;

  static constexpr std::int64_t kAny = std::numeric_limits<std::int64_t>::max();
  std::int64_t integer(const char* key, std::int64_t lowest = -kAny,
                       std::int64_t highest = kAny) const;
  std::int64_t integer_or(const char* key, std::int64_t fallback, std::int64_t lowest = -kAny,
                          std::int64_t highest = kAny) const;
  double number(const char* key) const;
  double number_or(const char* key, double fallback) const;
  bool boolean_or(const char* key, bool fallback) const;
  std::string string(const char* key) const;
  std::string string_or(const char* key, const std::string& fallback) const;
  std::vector<std::int64_t> integers(const char* key, std::size_t max_count = 1u << 20) const;
  std::vector<std::string> strings(const char* key) const;

  [[noreturn]] void fail(const std::string& message) const;

 private:
  [[noreturn]] void fail_type(const char* key, const char* expected) const;

  const nlohmann::json& value_;
  std::string where_;
  ExitCode code_;
};

}  // namespace medvqa::io
