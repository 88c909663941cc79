#include "medvqa/io/json.h"

#include <fmt/format.h>

#include <algorithm>

#include "medvqa/io/file.h"

namespace medvqa::io {
namespace {

using nlohmann::json;

// Builds the value from SAX events; refuses what a DOM parser would let pass.
template <class Json>
class StrictBuilder {
 public:
  StrictBuilder(std::string_view text, const std::string& name, JsonRules rules)
      : text_(text), name_(name), rules_(rules) {}

  Json take() { return std::move(root_); }

  bool null() { return put(nullptr); }
  bool boolean(bool value) { return put(value); }
  bool number_integer(json::number_integer_t value) { return put(value); }
  bool number_unsigned(json::number_unsigned_t value) { return put(value); }
  bool number_float(json::number_float_t value, const std::string&) { return put(value); }
  bool string(std::string& value) { return put(std::move(value)); }
  bool binary(json::binary_t&) { return false; }

  bool start_object(std::size_t) { return open(Json::object()); }
  bool start_array(std::size_t) { return open(Json::array()); }
  bool end_object() { return close(); }
  bool end_array() { return close(); }

  bool key(std::string& name) {
    if (stack_.back()->contains(name)) fail(fmt::format("the key \"{}\" appears twice", name));
    key_ = std::move(name);
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const json::exception& error) {
    const std::string_view before = text_.substr(0, std::min(position, text_.size()));
    const auto lines = std::count(before.begin(), before.end(), '\n');
    const auto newline = before.rfind('\n');
    const std::size_t column =
        newline == std::string_view::npos ? before.size() : before.size() - newline - 1;
    std::string what = error.what();
    // "[json.exception.parse_error.101] parse error at ...: syntax error while ... - DETAIL"
    const auto detail = what.find(" - ");
    if (detail != std::string::npos) what = what.substr(detail + 3);
    throw UserError(rules_.code, fmt::format("{}, line {}, column {}: not valid JSON: {}", name_,
                                             lines + 1, std::max<std::size_t>(column, 1), what));
  }

 private:
  [[noreturn]] void fail(const std::string& message) const {
    throw UserError(rules_.code, fmt::format("{}: {}", name_, message));
  }

  Json* place(Json value) {
    if (stack_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Json& parent = *stack_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    Json& slot = parent[key_];
    slot = std::move(value);
    return &slot;
  }

  bool put(Json value) {
    place(std::move(value));
    return true;
  }

  bool open(Json value) {
    if (static_cast<int>(stack_.size()) >= rules_.max_depth) {
      fail(fmt::format("nested deeper than {} levels", rules_.max_depth));
    }
    stack_.push_back(place(std::move(value)));
    return true;
  }

  bool close() {
    stack_.pop_back();
    return true;
  }

  std::string_view text_;
  const std::string& name_;
  JsonRules rules_;
  Json root_;
  // Only the innermost container grows, so pointers to the outer ones stay valid.
  std::vector<Json*> stack_;
  std::string key_;
};

template <class Json>
Json parse(std::string_view text, const std::string& name, JsonRules rules) {
  StrictBuilder<Json> builder(text, name, rules);
  Json::sax_parse(text.begin(), text.end(), &builder, Json::input_format_t::json, true,
                  rules.comments);
  return builder.take();
}

std::string text_of(const std::filesystem::path& path, const JsonRules& rules) {
  constexpr std::uint64_t kMaxBytes = std::uint64_t{1} << 28;
  return read_text_file(path, rules.code, kMaxBytes);
}

}  // namespace

json parse_json(std::string_view text, const std::string& name, JsonRules rules) {
  return parse<json>(text, name, rules);
}

json read_json_file(const std::filesystem::path& path, JsonRules rules) {
  return parse<json>(text_of(path, rules), path.string(), rules);
}

nlohmann::ordered_json read_ordered_json_file(const std::filesystem::path& path, JsonRules rules) {
  return parse<nlohmann::ordered_json>(text_of(path, rules), path.string(), rules);
}

std::string describe_json(const json& value) {
  if (value.is_object()) return "an object";
  if (value.is_array()) return "a list";
  constexpr auto kReplace = json::error_handler_t::replace;
  std::string text = value.dump(-1, ' ', false, kReplace);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

JsonObject::JsonObject(const json& value, std::string where, ExitCode code)
    : value_(value), where_(std::move(where)), code_(code) {
  if (!value_.is_object()) {
    throw UserError(code_,
                    fmt::format("{}: expected an object, found {}", where_, describe_json(value_)));
  }
}

void JsonObject::fail(const std::string& message) const {
  throw UserError(code_, fmt::format("{}: {}", where_, message));
}

void JsonObject::fail_type(const char* key, const char* expected) const {
  fail(fmt::format("\"{}\" must be {}, found {}", key, expected, describe_json(value_.at(key))));
}

bool JsonObject::has(const char* key) const {
  const auto found = value_.find(key);
  return found != value_.end() && !found->is_null();
}

const json& JsonObject::at(const char* key) const {
  const auto found = value_.find(key);
  if (found == value_.end()) fail(fmt::format("\"{}\" is missing", key));
  return *found;
}

JsonObject JsonObject::object(const char* key) const {
  return JsonObject(at(key), fmt::format("{}: \"{}\"", where_, key), code_);
}

std::int64_t JsonObject::integer(const char* key, std::int64_t lowest, std::int64_t highest) const {
  const json& value = at(key);
  if (!value.is_number_integer()) fail_type(key, "an integer");
  const bool fits =
      !value.is_number_unsigned() || value.get<std::uint64_t>() <= static_cast<std::uint64_t>(kAny);
  const std::int64_t number = fits ? value.get<std::int64_t>() : kAny;
  if (!fits || number < lowest || number > highest) {
    if (lowest == -kAny && highest == kAny) fail_type(key, "an integer of 64 bits");
    const std::string range = highest == kAny ? fmt::format("at least {}", lowest)
                                              : fmt::format("from {} to {}", lowest, highest);
    fail_type(key, range.c_str());
  }
  return number;
}

std::int64_t JsonObject::integer_or(const char* key, std::int64_t fallback, std::int64_t lowest,
                                    std::int64_t highest) const {
  return has(key) ? integer(key, lowest, highest) : fallback;
}

double JsonObject::number(const char* key) const {
  const json& value = at(key);
  if (!value.is_number()) fail_type(key, "a number");
  return value.get<double>();
}

double JsonObject::number_or(const char* key, double fallback) const {
  return has(key) ? number(key) : fallback;
}

bool JsonObject::boolean_or(const char* key, bool fallback) const {
  if (!has(key)) return fallback;
  if (!at(key).is_boolean()) fail_type(key, "true or false");
  return at(key).get<bool>();
}

std::string JsonObject::string(const char* key) const {
  if (!at(key).is_string()) fail_type(key, "a string");
  return at(key).get<std::string>();
}

std::string JsonObject::string_or(const char* key, const std::string& fallback) const {
  return has(key) ? string(key) : fallback;
}

std::vector<std::int64_t> JsonObject::integers(const char* key, std::size_t max_count) const {
  const json& value = at(key);
  if (!value.is_array() || value.size() > max_count) fail_type(key, "a list of integers");
  std::vector<std::int64_t> numbers;
  for (const json& item : value) {
    if (!item.is_number_integer() ||
        (item.is_number_unsigned() &&
         item.get<std::uint64_t>() > static_cast<std::uint64_t>(kAny))) {
      fail(fmt::format("\"{}\" must hold integers of 64 bits, found {}", key, describe_json(item)));
    }
    numbers.push_back(item.get<std::int64_t>());
  }
  return numbers;
}

std::vector<std::string> JsonObject::strings(const char* key) const {
  if (!at(key).is_array()) fail_type(key, "a list of strings");
  std::vector<std::string> texts;
  for (const json& item : at(key)) {
    if (!item.is_string()) {
      fail(fmt::format("\"{}\" must hold strings, found {}", key, describe_json(item)));
    }
    texts.push_back(item.get<std::string>());
  }
  return texts;
}

}  // namespace medvqa::io
