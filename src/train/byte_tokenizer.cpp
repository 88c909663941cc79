#include <algorithm>
#include <array>
#include <optional>
#include <set>

#include "medvqa/train/random_checkpoint.h"

namespace medvqa::train {

namespace {

using nlohmann::json;

constexpr std::int64_t kBytes = 256;
constexpr std::int64_t kPublishedVocabulary = 151657;

// Qwen2-VL's special tokens in the order of their published ids, and the config key of some.
struct SpecialToken {
  const char* text;
  std::int64_t published;
  const char* key;
};
constexpr std::array<SpecialToken, 14> kSpecialTokens{{
    {"<|endoftext|>", 151643, "bos_token_id"},
    {"<|im_start|>", 151644, ""},
    {"<|im_end|>", 151645, "eos_token_id"},
    {"<|object_ref_start|>", 151646, ""},
    {"<|object_ref_end|>", 151647, ""},
    {"<|box_start|>", 151648, ""},
    {"<|box_end|>", 151649, ""},
    {"<|quad_start|>", 151650, ""},
    {"<|quad_end|>", 151651, ""},
    {"<|vision_start|>", 151652, "vision_start_token_id"},
    {"<|vision_end|>", 151653, "vision_end_token_id"},
    {"<|vision_pad|>", 151654, "vision_token_id"},
    {"<|image_pad|>", 151655, "image_token_id"},
    {"<|video_pad|>", 151656, "video_token_id"},
}};

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
  if (*t.key == '\0' || !config.contains(t.key)) return std::nullopt;
  const json& id = config.at(t.key);
  return id.is_number_integer() ? std::optional(id.get<std::int64_t>()) : std::nullopt;
}

json special_tokens(const json& config) {
  const bool published = vocabulary_of(config) >= kPublishedVocabulary;
  std::set<std::int64_t> taken;
  for (const SpecialToken& t : kSpecialTokens) {
    if (const auto id = configured_id(config, t)) taken.insert(*id);
  }
  std::int64_t next = kBytes;
  json tokens = json::array();
  for (const SpecialToken& t : kSpecialTokens) {
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

constexpr const char* kSplit =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
    R"(\s*[\r\n]+|\s+(?!\S)|\s+)";

// What text/chat_template.h renders, for programs that read templates.
constexpr const char* kChatTemplate =
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

}  // namespace

json byte_level_tokenizer(const json& config) {
  json vocabulary;
  int next_unprintable = 256;
  for (int byte = 0; byte < kBytes; ++byte) {
    vocabulary[character_of(byte, next_unprintable)] = byte;
  }
  const json added = special_tokens(config);
  // In the vocabulary as well: Hugging Face numbers added tokens that are not in it by itself.
  for (const json& token : added) vocabulary[token.at("content").get<std::string>()] = token["id"];
  const json byte_level{{"type", "ByteLevel"},
                        {"add_prefix_space", false},
                        {"trim_offsets", false},
                        {"use_regex", false}};
  const json split{{"type", "Split"},
                   {"pattern", {{"Regex", kSplit}}},
                   {"behavior", "Isolated"},
                   {"invert", false}};
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", added},
          {"normalizer", {{"type", "NFC"}}},
          {"pre_tokenizer",
           {{"type", "Sequence"}, {"pretokenizers", json::array({split, byte_level})}}},
          {"post_processor", byte_level},
          {"decoder", byte_level},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", false},
            {"vocab", vocabulary},
            {"merges", json::array()}}}};
}

json tokenizer_settings() {
  json additional = json::array();
  for (std::size_t i = 1; i < kSpecialTokens.size(); ++i) {
    additional.push_back(kSpecialTokens[i].text);
  }
  return {{"tokenizer_class", "Qwen2Tokenizer"},
          {"bos_token", nullptr},
          {"eos_token", "<|im_end|>"},
          {"pad_token", "<|endoftext|>"},
          {"unk_token", nullptr},
          {"errors", "replace"},
          {"add_prefix_space", false},
          {"additional_special_tokens", additional},
          {"model_max_length", 32768},
          {"padding_side", "left"},
          {"chat_template", kChatTemplate}};
}

json processor_settings(const json& config) {
  const json vision = config.value("vision_config", json::object());
  return {{"do_convert_rgb", true},
          {"do_resize", true},
          {"do_rescale", true},
          {"do_normalize", true},
          {"image_processor_type", "Qwen2VLImageProcessor"},
          {"processor_class", "Qwen2VLProcessor"},
          {"image_mean", {0.48145466, 0.4578275, 0.40821073}},
          {"image_std", {0.26862954, 0.26130258, 0.27577711}},
          {"rescale_factor", 1.0 / 255.0},
          {"resample", 3},
          {"min_pixels", 3136},
          {"max_pixels", 12845056},
          {"patch_size", vision.value("patch_size", 14)},
          {"temporal_patch_size", vision.value("temporal_patch_size", 2)},
          {"merge_size", vision.value("spatial_merge_size", 2)}};
}

}  // namespace medvqa::train
