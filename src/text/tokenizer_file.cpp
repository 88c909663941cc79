#include "src/text/tokenizer_file.h"

#include <fmt/format.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

#include "medvqa/core/error.h"
#include "src/text/byte_alphabet.h"
#include "src/text/utf8.h"

namespace medvqa::text_detail {
namespace {

using Json = nlohmann::json;

constexpr std::uintmax_t kLargestFile = std::uintmax_t{1} << 28;
constexpr std::int64_t kMostTokens = std::int64_t{1} << 24;
constexpr const char* kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// Reads the parts, and knows the file's name for messages.
class Reader {
 public:
  explicit Reader(std::string name) : name_(std::move(name)) {}

  TokenizerParts read(const Json& file);
  [[noreturn]] void fail(std::string_view key, std::string_view found,
                         std::string_view expected) const {
    throw UserError(ExitCode::model,
                    fmt::format("{}: {}: found {}, expected {}; use the tokenizer.json published "
                                "with the model",
                                name_, key, found, expected));
  }

 private:
  const Json& at(const Json& object, std::string_view path, const char* key) const;
  std::string type_of(const Json& object, std::string_view path) const;
  bool flag(const Json& object, std::string_view path, const char* key, bool absent) const;
  std::int32_t checked_id(const Json& value, std::string_view key) const;

  void read_normalizer(const Json& value, std::string_view path);
  void read_pre_tokenizer(const Json& value, std::string_view path, bool* byte_level);
  void read_split(const Json& value, std::string_view path);
  void read_model(const Json& model);
  void read_vocabulary(const Json& vocabulary);
  void read_merges(const Json& merges);
  void add_merge(std::int32_t rank, const std::string& left, const std::string& right);
  void read_added_tokens(const Json& tokens);
  void set_token(std::int32_t id, const std::string& content, std::string_view key);
  void finish();

  std::string name_;
  TokenizerParts parts_;
};

std::string shown(const Json& value) {
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  return text.size() <= 60 ? text : text.substr(0, 57) + "...";
}

const Json& Reader::at(const Json& object, std::string_view path, const char* key) const {
  if (!object.is_object()) fail(path, shown(object), "an object");
  const auto found = object.find(key);
  if (found == object.end()) fail(fmt::format("{}.{}", path, key), "nothing", "a value");
  return *found;
}

std::string Reader::type_of(const Json& object, std::string_view path) const {
  const Json& type = at(object, path, "type");
  if (!type.is_string()) fail(fmt::format("{}.type", path), shown(type), "a string");
  return type.get<std::string>();
}

bool Reader::flag(const Json& object, std::string_view path, const char* key, bool absent) const {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return absent;
  if (!found->is_boolean()) fail(fmt::format("{}.{}", path, key), shown(*found), "true or false");
  return found->get<bool>();
}

std::int32_t Reader::checked_id(const Json& value, std::string_view key) const {
  if (!value.is_number_unsigned() || value.get<std::uint64_t>() >= kMostTokens) {
    fail(key, shown(value), fmt::format("an id below {}", kMostTokens));
  }
  return value.get<std::int32_t>();
}

void Reader::read_normalizer(const Json& value, std::string_view path) {
  if (value.is_null()) return;
  const std::string type = type_of(value, path);
  if (type == "NFC") {
    parts_.nfc = true;
  } else if (type == "Sequence") {
    const Json& list = at(value, path, "normalizers");
    if (!list.is_array()) fail(fmt::format("{}.normalizers", path), shown(list), "a list");
    for (std::size_t i = 0; i < list.size(); ++i) {
      read_normalizer(list[i], fmt::format("{}.normalizers[{}]", path, i));
    }
  } else {
    fail(path, type, "NFC or none");
  }
}

void Reader::read_split(const Json& value, std::string_view path) {
  const Json& pattern = at(value, path, "pattern");
  const std::string key = fmt::format("{}.pattern", path);
  const Json& regex = at(pattern, key, "Regex");
  if (!regex.is_string()) fail(key + ".Regex", shown(regex), "a string");
  const Json& behavior = at(value, path, "behavior");
  if (behavior != "Isolated" || flag(value, path, "invert", false)) {
    fail(fmt::format("{}.behavior", path), shown(behavior), "Isolated, not inverted");
  }
  parts_.splits.emplace_back(regex.get<std::string>(), name_ + ": " + key + ".Regex");
}

void Reader::read_pre_tokenizer(const Json& value, std::string_view path, bool* byte_level) {
  const std::string type = type_of(value, path);
  if (*byte_level) fail(path, type, "nothing after ByteLevel");
  if (type == "Sequence") {
    const Json& list = at(value, path, "pretokenizers");
    if (!list.is_array()) fail(fmt::format("{}.pretokenizers", path), shown(list), "a list");
    for (std::size_t i = 0; i < list.size(); ++i) {
      read_pre_tokenizer(list[i], fmt::format("{}.pretokenizers[{}]", path, i), byte_level);
    }
  } else if (type == "Split") {
    read_split(value, path);
  } else if (type == "ByteLevel") {
    if (flag(value, path, "add_prefix_space", true)) {
      fail(fmt::format("{}.add_prefix_space", path), "true", "false");
    }
    if (flag(value, path, "use_regex", true)) {
      parts_.splits.emplace_back(kGpt2Pattern, name_ + ": " + std::string(path));
    }
    *byte_level = true;
  } else {
    fail(path, type, "Split, ByteLevel or a Sequence of them");
  }
}

void Reader::set_token(std::int32_t id, const std::string& content, std::string_view key) {
  const auto index = static_cast<std::size_t>(id);
  if (parts_.tokens.size() <= index) parts_.tokens.resize(index + 1);
  const auto known = parts_.ids.emplace(content, id);
  if (known.first->second != id || (!parts_.tokens[index].empty() && known.second)) {
    fail(key, fmt::format("id {} for \"{}\" and for another token", id, content),
         "one id for every token");
  }
  parts_.tokens[index] = content;
}

void Reader::read_vocabulary(const Json& vocabulary) {
  const std::string key = "model.vocab";
  if (!vocabulary.is_object()) fail(key, shown(vocabulary), "an object");
  parts_.ids.reserve(vocabulary.size());
  for (const auto& item : vocabulary.items()) {
    set_token(checked_id(item.value(), key), item.key(), key);
  }
  for (int b = 0; b < 256; ++b) {
    const std::string letter = bytes_to_letters(std::string(1, static_cast<char>(b)));
    const auto found = parts_.ids.find(letter);
    if (found == parts_.ids.end()) {
      fail(key, fmt::format("no token for byte {:#04x}", b), "a byte-level vocabulary");
    }
    parts_.bpe.byte_ids[static_cast<std::size_t>(b)] = found->second;
  }
}

void Reader::add_merge(std::int32_t rank, const std::string& left, const std::string& right) {
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

void Reader::read_merges(const Json& merges) {
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

void Reader::read_model(const Json& model) {
  // Files of older releases leave the type out.
  if (model.is_object() && model.contains("type") && model["type"] != "BPE") {
    fail("model.type", shown(model["type"]), "BPE");
  }
  for (const char* key :
       {"dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"}) {
    const Json value = model.is_object() ? model.value(key, Json()) : Json();
    if (!value.is_null() && value != "" && value != 0.0) {
      fail(fmt::format("model.{}", key), shown(value), "null");
    }
  }
  read_vocabulary(at(model, "model", "vocab"));
  read_merges(at(model, "model", "merges"));
  if (flag(model, "model", "byte_fallback", false)) fail("model.byte_fallback", "true", "false");
  if (!flag(model, "model", "ignore_merges", false)) return;
  for (const auto& entry : parts_.ids) {
    const auto bytes = letters_to_bytes(entry.first);
    if (bytes) parts_.bpe.whole_words.emplace(*bytes, entry.second);
  }
}

void Reader::read_added_tokens(const Json& tokens) {
  if (!tokens.is_array()) fail("added_tokens", shown(tokens), "a list");
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const std::string path = fmt::format("added_tokens[{}]", i);
    const Json& content = at(tokens[i], path, "content");
    if (!content.is_string()) fail(path + ".content", shown(content), "a string");
    AddedToken token;
    token.id = checked_id(at(tokens[i], path, "id"), path + ".id");
    token.content = content.get<std::string>();
    token.single_word = flag(tokens[i], path, "single_word", false);
    token.lstrip = flag(tokens[i], path, "lstrip", false);
    token.rstrip = flag(tokens[i], path, "rstrip", false);
    token.special = flag(tokens[i], path, "special", false);
    token.normalized = flag(tokens[i], path, "normalized", !token.special);
    set_token(token.id, token.content, path);
    parts_.added.push_back(std::move(token));
  }
}

void Reader::finish() {
  for (const std::string& token : parts_.tokens) {
    const auto bytes = letters_to_bytes(token);
    parts_.bpe.token_bytes.push_back(
        static_cast<std::uint32_t>(bytes ? bytes->size() : token.size()));
  }
}

TokenizerParts Reader::read(const Json& file) {
  if (!file.is_object()) fail("the file", shown(file), "an object");
  read_normalizer(file.value("normalizer", Json()), "normalizer");
  bool byte_level = false;
  read_pre_tokenizer(at(file, "the file", "pre_tokenizer"), "pre_tokenizer", &byte_level);
  if (!byte_level) fail("pre_tokenizer", "no ByteLevel", "a byte-level tokenizer");
  const Json decoder = file.value("decoder", Json());
  if (!decoder.is_null() && type_of(decoder, "decoder") != "ByteLevel") {
    fail("decoder", shown(decoder), "ByteLevel");
  }
  read_model(at(file, "the file", "model"));
  read_added_tokens(file.value("added_tokens", Json::array()));
  parts_.post_processor = read_post_processor(file.value("post_processor", Json()), name_);
  finish();
  return std::move(parts_);
}

std::string read_text(const std::filesystem::path& path, const Reader& reader) {
  std::error_code error;
  const std::uintmax_t size = std::filesystem::file_size(path, error);
  if (error) reader.fail("the file", error.message(), "a readable file");
  if (size > kLargestFile) {
    reader.fail("the file", fmt::format("{} bytes", size), fmt::format("at most {}", kLargestFile));
  }
  std::string text(static_cast<std::size_t>(size), '\0');
  std::ifstream file(path, std::ios::binary);
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (!file) reader.fail("the file", "an error while reading", "a readable file");
  return text;
}

}  // namespace

TokenizerParts read_tokenizer_file(const std::filesystem::path& path) {
  Reader reader(path.string());
  const std::string text = read_text(path, reader);
  Json file;
  try {
    file = Json::parse(text);
  } catch (const Json::exception&) {
    reader.fail("the file", "text that is not JSON", "JSON");
  }
  return reader.read(file);
}

}  // namespace medvqa::text_detail
