#include "src/text/tokenizer_parts.h"

#include <fmt/format.h>

#include <fstream>
#include <system_error>
#include <utility>

#include "medvqa/core/error.h"

namespace medvqa::text_detail {
namespace {

using Json = nlohmann::json;

constexpr std::uintmax_t kLargestFile = std::uintmax_t{1} << 28;
constexpr std::int64_t kMostTokens = std::int64_t{1} << 24;

}  // namespace

std::string shown(const Json& value) {
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  return text.size() <= 60 ? text : text.substr(0, 57) + "...";
}

void PartsReader::fail(std::string_view key, std::string_view found,
                       std::string_view expected) const {
  throw UserError(
      ExitCode::model,
      fmt::format("{}: {}: found {}, expected {}; use the file published with the model", name_,
                  key, found, expected));
}

const Json& PartsReader::at(const Json& object, std::string_view path, const char* key) const {
  if (!object.is_object()) fail(path, shown(object), "an object");
  const auto found = object.find(key);
  if (found == object.end()) fail(fmt::format("{}.{}", path, key), "nothing", "a value");
  return *found;
}

std::string PartsReader::type_of(const Json& object, std::string_view path) const {
  const Json& type = at(object, path, "type");
  if (!type.is_string()) fail(fmt::format("{}.type", path), shown(type), "a string");
  return type.get<std::string>();
}

bool PartsReader::flag(const Json& object, std::string_view path, const char* key,
                       bool absent) const {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return absent;
  if (!found->is_boolean()) fail(fmt::format("{}.{}", path, key), shown(*found), "true or false");
  return found->get<bool>();
}

std::int32_t PartsReader::checked_id(const Json& value, std::string_view key) const {
  if (!value.is_number_unsigned() || value.get<std::uint64_t>() >= kMostTokens) {
    fail(key, shown(value), fmt::format("an id below {}", kMostTokens));
  }
  return value.get<std::int32_t>();
}

void PartsReader::set_token(std::int32_t id, const std::string& content, std::string_view key) {
  const auto index = static_cast<std::size_t>(id);
  if (parts_.tokens.size() <= index) parts_.tokens.resize(index + 1);
  const auto known = parts_.ids.emplace(content, id);
  if (known.first->second != id || (!parts_.tokens[index].empty() && known.second)) {
    fail(key, fmt::format("id {} for \"{}\" and for another token", id, content),
         "one id for every token");
  }
  parts_.tokens[index] = content;
}

void PartsReader::add_merge(std::int32_t rank, const std::string& left, const std::string& right) {
  const auto id_of = [&](const std::string& token) {
    const auto found = parts_.ids.find(token);
    if (found == parts_.ids.end()) {
      fail(fmt::format("model.merges[{}]", rank), fmt::format("\"{}\"", token),
           "a token of model.vocab");
    }
    return found->second;
  };
  parts_.bpe.merges[pair_key(id_of(left), id_of(right))] = {rank, id_of(left + right)};
}

void PartsReader::read_merges(const Json& merges) {
  if (!merges.is_array()) fail("model.merges", shown(merges), "a list");
  parts_.bpe.merges.reserve(merges.size());
  std::int32_t rank = 0;
  for (const Json& merge : merges) {
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      add_merge(rank, merge[0].get<std::string>(), merge[1].get<std::string>());
    } else {
      const std::string text = merge.is_string() ? merge.get<std::string>() : "";
      const std::size_t space = text.find(' ');
      if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
        fail(fmt::format("model.merges[{}]", rank), shown(merge), "two tokens");
      }
      add_merge(rank, text.substr(0, space), text.substr(space + 1));
    }
    ++rank;
  }
}

AddedToken PartsReader::added_token(const Json& token, std::string_view path) const {
  const Json& content = at(token, path, "content");
  if (!content.is_string()) fail(fmt::format("{}.content", path), shown(content), "a string");
  AddedToken result;
  result.content = content.get<std::string>();
  result.single_word = flag(token, path, "single_word", false);
  result.lstrip = flag(token, path, "lstrip", false);
  result.rstrip = flag(token, path, "rstrip", false);
  result.special = flag(token, path, "special", false);
  result.normalized = flag(token, path, "normalized", !result.special);
  return result;
}

void PartsReader::read_added_tokens(const Json& tokens) {
  if (!tokens.is_array()) fail("added_tokens", shown(tokens), "a list");
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const std::string path = fmt::format("added_tokens[{}]", i);
    AddedToken token = added_token(tokens[i], path);
    token.id = checked_id(at(tokens[i], path, "id"), path + ".id");
    set_token(token.id, token.content, path);
    parts_.added.push_back(std::move(token));
  }
}

std::string PartsReader::read_text() const {
  std::error_code error;
  const std::uintmax_t size = std::filesystem::file_size(name_, error);
  if (error) fail("the file", error.message(), "a readable file");
  if (size > kLargestFile) {
    fail("the file", fmt::format("{} bytes", size), fmt::format("at most {}", kLargestFile));
  }
  std::string text(static_cast<std::size_t>(size), '\0');
  std::ifstream file(name_, std::ios::binary);
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (!file) fail("the file", "an error while reading", "a readable file");
  return text;
}

Json PartsReader::read_json() const {
  const std::string text = read_text();
  try {
    return Json::parse(text);
  } catch (const Json::exception&) {
    fail("the file", "text that is not JSON", "JSON");
  }
}

}  // namespace medvqa::text_detail
