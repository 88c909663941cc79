#include "src/text/sentencepiece_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <system_error>
#include <utility>

#include "medvqa/core/error.h"
#include "src/text/sentencepiece_model.h"
#include "src/text/tokenizer_file.h"
#include "src/text/utf8.h"

namespace medvqa::text_detail {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr std::array kNamed = {"bos_token", "eos_token", "unk_token", "sep_token",
                               "pad_token", "cls_token", "mask_token"};

bool is_there(const fs::path& path) {
  std::error_code error;
  return fs::exists(path, error);
}

// Vocabulary and merges, from either file.
class VocabularyReader : public PartsReader {
 public:
  explicit VocabularyReader(const fs::path& path) : PartsReader(path) {}

  TokenizerParts read_model();
  TokenizerParts read_json_model(const Json& model);
  bool has_byte_fallback(const Json& file) const {
    const Json model = file.is_object() ? file.value("model", Json()) : Json();
    return model.is_object() && flag(model, "model", "byte_fallback", false);
  }

 private:
  void make_merges();
  TokenizerParts finish();
};

// Every way to make a token of two others, in the order of ids, then of the left one's length.
void VocabularyReader::make_merges() {
  std::int32_t rank = 0;
  const std::vector<std::string> tokens = parts_.tokens;
  for (const std::string& token : tokens) {
    for (std::size_t i = 0; i < token.size();) {
      i += decode_at(token, i).bytes;
      const std::string left = token.substr(0, i), right = token.substr(i);
      if (parts_.ids.contains(left) && parts_.ids.contains(right)) add_merge(rank++, left, right);
    }
  }
}

TokenizerParts VocabularyReader::read_model() {
  const auto model = parse_sentencepiece_model(read_text());
  if (!model) fail("the file", "bytes that are no SentencePiece model", "one");
  if (model->model_type != SentencePieceModel::kBpe) {
    fail("model_type", fmt::format("{}", model->model_type), "2 (BPE), the only one built in");
  }
  for (const ModelPiece& piece : model->pieces) {
    const auto id = static_cast<std::int32_t>(parts_.tokens.size());
    set_token(id, piece.text, fmt::format("piece {}", id));
    const bool is_control = piece.kind == ModelPiece::Kind::control;
    if (!is_control && piece.kind != ModelPiece::Kind::user_defined) continue;
    AddedToken token;
    token.id = id;
    token.content = piece.text;
    token.special = is_control;
    parts_.added.push_back(std::move(token));
  }
  make_merges();
  return finish();
}

TokenizerParts VocabularyReader::read_json_model(const Json& model) {
  if (model.value("type", Json("BPE")) != "BPE") fail("model.type", shown(model["type"]), "BPE");
  const Json& vocabulary = at(model, "model", "vocab");
  if (!vocabulary.is_object()) fail("model.vocab", shown(vocabulary), "an object");
  for (const auto& item : vocabulary.items()) {
    set_token(checked_id(item.value(), "model.vocab"), item.key(), "model.vocab");
  }
  read_merges(at(model, "model", "merges"));
  return finish();
}

TokenizerParts VocabularyReader::finish() {
  for (const std::string& token : parts_.tokens) {
    parts_.bpe.token_bytes.push_back(static_cast<std::uint32_t>(token.size()));
    if (!token.empty() && decode_at(token, 0).bytes == token.size()) {
      parts_.bpe.characters.emplace(token, parts_.ids.at(token));
    }
  }
  if (parts_.bpe.characters.empty()) fail("the vocabulary", "no single character", "some");
  std::set<std::int32_t> bytes;
  for (std::size_t b = 0; b < parts_.bpe.byte_ids.size(); ++b) {
    const std::string piece = byte_piece(static_cast<std::uint8_t>(b));
    const auto found = parts_.ids.find(piece);
    if (found == parts_.ids.end()) {
      fail("the vocabulary", "no token " + piece, "a token for every byte (byte_fallback)");
    }
    parts_.bpe.byte_ids[b] = found->second;
    parts_.bpe.token_bytes[static_cast<std::size_t>(found->second)] = 1;
    bytes.insert(found->second);
  }
  for (const auto& merge : parts_.bpe.merges) {
    if (!bytes.contains(merge.second.joined)) continue;
    fail("the merges", "one that spells out the token of a byte", "none");
  }
  return std::move(parts_);
}

// The added tokens and the rules for spaces, from tokenizer_config.json and the files beside it.
class SettingsReader : public PartsReader {
 public:
  SettingsReader(const fs::path& folder, TokenizerParts parts)
      : PartsReader(folder / "tokenizer_config.json"), folder_(folder) {
    parts_ = std::move(parts);
  }

  TokenizerParts read(const Json& tokenizer_json);

 private:
  void read_listed(const Json& tokenizer_json);
  void read_special_tokens_map();
  void read_added_tokens_file();
  void add_named();
  void add_further(const std::vector<AddedToken>& of_the_model);
  void read_spaces();
  void read_post_processor(const Json& tokenizer_json);
  AddedToken token_of(const Json& value, const std::string& key) const;
  // An id of the vocabulary, or the next one. A later token of the same text replaces the flags.
  void add(AddedToken token, const std::string& key, std::int64_t expected_id = -1);

  fs::path folder_;
  Json settings_ = Json::object();
  std::set<std::string> listed_;
  std::map<std::int32_t, AddedToken> added_;
};

void SettingsReader::add(AddedToken token, const std::string& key, std::int64_t expected_id) {
  const auto known = parts_.ids.find(token.content);
  token.id =
      known != parts_.ids.end() ? known->second : static_cast<std::int32_t>(parts_.tokens.size());
  if (expected_id >= 0 && expected_id != token.id) {
    fail(key, fmt::format("id {} for \"{}\"", expected_id, token.content),
         fmt::format("{}, as in the vocabulary", token.id));
  }
  if (known == parts_.ids.end()) {
    set_token(token.id, token.content, key);
    parts_.bpe.token_bytes.push_back(static_cast<std::uint32_t>(token.content.size()));
  }
  added_[token.id] = std::move(token);
}

// A text alone is a special token.
AddedToken SettingsReader::token_of(const Json& value, const std::string& key) const {
  if (value.is_object()) return added_token(value, key);
  if (!value.is_string()) fail(key, shown(value), "a text or an object");
  AddedToken token;
  token.content = value.get<std::string>();
  token.special = true;
  return token;
}

void SettingsReader::read_listed(const Json& tokenizer_json) {
  std::map<std::int32_t, AddedToken> by_id;
  if (settings_.contains("added_tokens_decoder")) {
    const Json& list = settings_["added_tokens_decoder"];
    if (!list.is_object()) fail("added_tokens_decoder", shown(list), "an object");
    for (const auto& item : list.items()) {
      const std::string key = "added_tokens_decoder." + item.key();
      const Json id = Json::parse(item.key(), nullptr, /*allow_exceptions=*/false);
      by_id[checked_id(id, key)] = added_token(item.value(), key);
    }
  } else {
    read_special_tokens_map();
    read_added_tokens_file();
    const Json list = tokenizer_json.value("added_tokens", Json::array());
    for (const Json& token : list) {
      by_id[checked_id(at(token, "added_tokens", "id"), "added_tokens")] =
          added_token(token, "added_tokens");
    }
  }
  for (auto& [id, token] : by_id) {
    listed_.insert(token.content);
    add(std::move(token), fmt::format("added token {}", id), id);
  }
}

// Wins over tokenizer_config.json where that lists no added tokens.
void SettingsReader::read_special_tokens_map() {
  const fs::path path = folder_ / "special_tokens_map.json";
  if (!is_there(path)) return;
  const Json map = VocabularyReader(path).read_json();
  if (!map.is_object()) fail("special_tokens_map.json", shown(map), "an object");
  for (const auto& item : map.items()) {
    settings_[item.key()] = item.value();
    if (item.value().is_object()) settings_[item.key()]["special"] = true;
  }
}

void SettingsReader::read_added_tokens_file() {
  const fs::path path = folder_ / "added_tokens.json";
  if (!is_there(path)) return;
  fail("added_tokens_decoder", "nothing, but a file added_tokens.json",
       "the form of transformers since 4.34: load and save the tokenizer with it");
}

void SettingsReader::add_named() {
  std::vector<std::string> keys(kNamed.begin(), kNamed.end());
  for (const auto& item : settings_.items()) {
    if (!item.key().ends_with("_token") || !item.value().is_string()) continue;
    if (std::find(keys.begin(), keys.end(), item.key()) == keys.end()) keys.push_back(item.key());
  }
  const std::map<std::string, std::string> usual = {
      {"bos_token", "<s>"}, {"eos_token", "</s>"}, {"unk_token", "<unk>"}};
  for (const std::string& key : keys) {
    const auto fallback = usual.find(key);
    Json value = settings_.value(key, Json());
    if (!settings_.contains(key) && fallback != usual.end()) value = fallback->second;
    if (value.is_null()) continue;
    AddedToken token = token_of(value, key);
    token.special = true;
    if (!listed_.contains(token.content)) add(std::move(token), key);
  }
}

void SettingsReader::add_further(const std::vector<AddedToken>& of_the_model) {
  for (const char* key : {"extra_special_tokens", "additional_special_tokens"}) {
    const Json list = settings_.value(key, Json());
    if (list.is_null()) continue;
    if (!list.is_array()) fail(key, shown(list), "a list");
    for (const Json& value : list) {
      AddedToken token = token_of(value, key);
      if (!listed_.contains(token.content)) add(std::move(token), key);
    }
    return;
  }
  for (const AddedToken& token : of_the_model) {
    if (!listed_.contains(token.content)) add(token, "the model");
  }
}

void SettingsReader::read_spaces() {
  const bool has_prefix = flag(settings_, "the file", "add_prefix_space", true);
  const bool legacy = flag(settings_, "the file", "legacy", false);
  parts_.spaces.emplace();
  parts_.spaces->prefix = !has_prefix ? SpacePrefix::never
                          : legacy    ? SpacePrefix::always
                                      : SpacePrefix::first;
}

// The settings' own flags count where there is no tokenizer.json only.
void SettingsReader::read_post_processor(const Json& tokenizer_json) {
  if (!tokenizer_json.empty()) {
    parts_.post_processor = text_detail::read_post_processor(
        tokenizer_json.value("post_processor", Json()), (folder_ / "tokenizer.json").string());
    return;
  }
  const auto named = [&](const char* flag_key, const char* token_key, const char* usual) {
    std::vector<std::int32_t> ids;
    const Json token = settings_.value(token_key, Json(usual));
    if (!flag(settings_, "the file", flag_key, false) || token.is_null()) return ids;
    ids.push_back(parts_.ids.at(token_of(token, token_key).content));
    return ids;
  };
  parts_.post_processor.before = named("add_bos_token", "bos_token", "<s>");
  parts_.post_processor.after = named("add_eos_token", "eos_token", "</s>");
}

TokenizerParts SettingsReader::read(const Json& tokenizer_json) {
  if (is_there(name_)) settings_ = read_json();
  if (!settings_.is_object()) fail("the file", shown(settings_), "an object");
  const Json type = settings_.value("tokenizer_class", Json("LlamaTokenizer"));
  if (type != "LlamaTokenizer" && type != "LlamaTokenizerFast") {
    fail("tokenizer_class", shown(type), "LlamaTokenizer, the only SentencePiece one built in");
  }
  const std::vector<AddedToken> of_the_model = std::move(parts_.added);
  read_listed(tokenizer_json);
  add_named();
  add_further(of_the_model);
  read_spaces();
  read_post_processor(tokenizer_json);
  parts_.added.clear();
  for (auto& entry : added_) parts_.added.push_back(std::move(entry.second));
  return std::move(parts_);
}

}  // namespace

TokenizerParts read_tokenizer_folder(const fs::path& folder) {
  const fs::path json = folder / "tokenizer.json";
  if (!is_there(json)) {
    if (!is_there(folder / "tokenizer.model")) {
      throw UserError(ExitCode::model,
                      fmt::format("{}: found nothing, expected the model's tokenizer; copy "
                                  "tokenizer.json or tokenizer.model from the Hub folder of the "
                                  "model",
                                  json.string()));
    }
    TokenizerParts parts = VocabularyReader(folder / "tokenizer.model").read_model();
    return SettingsReader(folder, std::move(parts)).read(Json::object());
  }
  VocabularyReader reader(json);
  const Json file = reader.read_json();
  if (!reader.has_byte_fallback(file)) return read_tokenizer_json(json, file);
  TokenizerParts parts = reader.read_json_model(file["model"]);
  return SettingsReader(folder, std::move(parts)).read(file);
}

}  // namespace medvqa::text_detail
