#include "src/text/tokenizer_file.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "src/text/byte_alphabet.h"

namespace medvqa::text_detail {
namespace {

using Json = nlohmann::json;

constexpr const char* kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

class Reader : public PartsReader {
 public:
  explicit Reader(const std::filesystem::path& path) : PartsReader(path) {}

  TokenizerParts read(const Json& file);

 private:
  void read_normalizer(const Json& value, std::string_view path);
  void read_pre_tokenizer(const Json& value, std::string_view path, bool* byte_level);
  void read_split(const Json& value, std::string_view path);
  void read_model(const Json& model);
  void read_vocabulary(const Json& vocabulary);
  void finish();
};

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

void Reader::read_model(const Json& model) {
  // Files of older releases leave the type out.
  if (model.is_object() && model.contains("type") && model["type"] != "BPE") {
    fail("model.type", shown(model["type"]), "BPE");
  }
  for (const char* key :
       {"dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"}) {
    const Json value = model.is_object() ? model.value(key, Json()) : Json();
    const bool no_text = value.is_string() && value.get_ref<const std::string&>().empty();
    if (!value.is_null() && !no_text && value != 0.0) {
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

}  // namespace

TokenizerParts read_tokenizer_file(const std::filesystem::path& path) {
  Reader reader(path);
  return reader.read(reader.read_json());
}

TokenizerParts read_tokenizer_json(const std::filesystem::path& path, const Json& file) {
  return Reader(path).read(file);
}

}  // namespace medvqa::text_detail
