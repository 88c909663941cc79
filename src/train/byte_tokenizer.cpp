#include <algorithm>
#include <optional>
#include <set>

#include "medvqa/train/random_checkpoint.h"
#include "src/train/family_files.h"

namespace medvqa::train {

namespace {

using nlohmann::json;

constexpr std::int64_t kBytes = 256;

// Byte-level BPE writes bytes as characters: printable Latin-1 as itself, the rest from U+0100 on.
std::string character_of(int byte, int& next_unprintable) {
  const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) ||
                         (byte >= 0xAE && byte <= 0xFF);
  const int code = printable ? byte : next_unprintable++;
  if (code < 0x80) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xC0 | (code >> 6)), static_cast<char>(0x80 | (code & 0x3F))};
}

std::int64_t vocabulary_of(const json& config) {
  const json& text = config.contains("text_config") ? config.at("text_config") : config;
  return text.value("vocab_size", config.value("vocab_size", std::int64_t{0}));
}

json added_token(std::int64_t id, const char* text) {
  return {{"id", id},        {"content", text},     {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", true}};
}

// The id config.json gives a token; several checkpoints have null there.
std::optional<std::int64_t> configured_id(const json& config, const SpecialToken& t) {
  if (*t.key == '\0') return std::nullopt;
  const json text = config.value("text_config", json::object());
  for (const json* section : {&config, &text}) {
    if (section->contains(t.key) && section->at(t.key).is_number_integer()) {
      return section->at(t.key).get<std::int64_t>();
    }
  }
  return std::nullopt;
}

json special_tokens(const json& config, const FamilyFiles& family) {
  const bool published = vocabulary_of(config) >= family.published_vocabulary;
  std::set<std::int64_t> taken;
  for (const SpecialToken& t : family.tokens) {
    if (const auto id = configured_id(config, t)) taken.insert(*id);
  }
  std::int64_t next = kBytes;
  json tokens = json::array();
  for (const SpecialToken& t : family.tokens) {
    std::int64_t id = t.published;
    if (const auto configured = configured_id(config, t)) {
      id = *configured;
    } else if (!published) {
      while (taken.contains(next)) ++next;
      id = next++;
    }
    tokens.push_back(added_token(id, t.text));
  }
  std::sort(tokens.begin(), tokens.end(),
            [](const json& a, const json& b) { return a.at("id") < b.at("id"); });
  return tokens;
}

// What text/chat_template.h renders, for programs that read templates.
// Llama-3's tokenizer begins every text with a token of its own, where special tokens are asked
// for.
json post_processor(const FamilyFiles& family, const json& added, const json& byte_level) {
  if (family.begin == nullptr) return byte_level;
  std::int64_t id = 0;
  for (const json& token : added) {
    if (token.at("content") == family.begin) id = token.at("id");
  }
  const json begin{{"SpecialToken", {{"id", family.begin}, {"type_id", 0}}}};
  const auto sequence = [](const char* name, int type) {
    return json{{"Sequence", {{"id", name}, {"type_id", type}}}};
  };
  json begin_of_pair = begin;
  begin_of_pair["SpecialToken"]["type_id"] = 1;
  const json entry{{"id", family.begin}, {"ids", {id}}, {"tokens", {family.begin}}};
  const json prefix{
      {"type", "TemplateProcessing"},
      {"single", json::array({begin, sequence("A", 0)})},
      {"pair", json::array({begin, sequence("A", 0), begin_of_pair, sequence("B", 1)})},
      {"special_tokens", {{family.begin, entry}}}};
  return {{"type", "Sequence"}, {"processors", json::array({byte_level, prefix})}};
}

}  // namespace

json byte_level_tokenizer(const json& config) {
  json vocabulary;
  int next_unprintable = 256;
  for (int byte = 0; byte < kBytes; ++byte) {
    vocabulary[character_of(byte, next_unprintable)] = byte;
  }
  const FamilyFiles family = family_files(config);
  const json added = special_tokens(config, family);
  // In the vocabulary as well: Hugging Face numbers added tokens that are not in it by itself.
  for (const json& token : added) vocabulary[token.at("content").get<std::string>()] = token["id"];
  const json byte_level{{"type", "ByteLevel"},
                        {"add_prefix_space", false},
                        {"trim_offsets", false},
                        {"use_regex", false}};
  const json split{{"type", "Split"},
                   {"pattern", {{"Regex", family.split}}},
                   {"behavior", "Isolated"},
                   {"invert", false}};
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", added},
          {"normalizer", family.nfc ? json{{"type", "NFC"}} : json(nullptr)},
          {"pre_tokenizer",
           {{"type", "Sequence"}, {"pretokenizers", json::array({split, byte_level})}}},
          {"post_processor", post_processor(family, added, byte_level)},
          {"decoder", byte_level},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", family.ignore_merges},
            {"vocab", vocabulary},
            {"merges", json::array()}}}};
}

json tokenizer_settings(const json& config) {
  return family_files(config).tokenizer_settings;
}

json processor_settings(const json& config) {
  return family_files(config).processor_settings;
}

}  // namespace medvqa::train
