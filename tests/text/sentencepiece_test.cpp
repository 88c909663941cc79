// Against LlamaTokenizer (tests/fixtures/text/sentencepiece/cases.json says of which release).
// More texts and models are compared by scripts/parity_inputs.py sentencepiece.
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>

#include "medvqa/core/error.h"
#include "medvqa/text/tokenizer.h"
#include "src/text/sentencepiece_model.h"
#include "tests/io/io_test_support.h"

namespace medvqa {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

fs::path fixture(const std::string& name) {
  return fs::path(MEDVQA_FIXTURES) / "text/sentencepiece" / name;
}

std::string bytes_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Offsets as the reference gives them: ranges of characters.
json in_characters(const std::string& text, const Encoding& encoding) {
  std::vector<std::size_t> character;
  std::size_t count = 0;
  for (const char c : text) {
    if ((static_cast<unsigned char>(c) & 0xc0) != 0x80) ++count;
    character.push_back(count - 1);
  }
  json ranges = json::array();
  for (const Span& s : encoding.offsets) {
    ranges.push_back({character.at(s.begin), character.at(s.end - 1) + 1});
  }
  return ranges;
}

class SentencePiece : public testing::Test {
 protected:
  SentencePiece() { folder_.write("tokenizer.model", bytes_of(fixture("tokenizer.model"))); }
  Tokenizer load(const json& settings) {
    folder_.write("tokenizer_config.json", settings.dump());
    return Tokenizer::load_folder(folder_.path());
  }
  std::string error_of(const json& settings) {
    try {
      load(settings);
    } catch (const UserError& error) {
      EXPECT_EQ(error.code(), ExitCode::model);
      return error.what();
    }
    return "no error";
  }
  io::TempFolder folder_;
};

TEST_F(SentencePiece, EqualsTheReference) {
  const json cases = json::parse(bytes_of(fixture("cases.json"))).at("cases");
  ASSERT_EQ(cases.size(), 6u);
  for (const json& one : cases) {
    const Tokenizer tokenizer = load(one.at("tokenizer_config"));
    EXPECT_EQ(tokenizer.vocab_size(), one.at("size")) << one.at("name");
    for (const json& entry : one.at("texts")) {
      const std::string text = entry.at("text");
      const Encoding encoding = tokenizer.encode(text);
      const std::string where = one.at("name").get<std::string>() + ": \"" + text + "\"";
      EXPECT_EQ(json(encoding.ids), entry.at("ids")) << where;
      EXPECT_EQ(in_characters(text, encoding), entry.at("offsets")) << where;
      EXPECT_EQ(tokenizer.decode(encoding.ids, false), entry.at("decoded")) << where;
      EXPECT_EQ(tokenizer.decode(encoding.ids, true), entry.at("decoded_plain")) << where;
    }
  }
}

TEST_F(SentencePiece, AJsonOfThatKindIsReadInstead) {
  EXPECT_TRUE(load(json::object()).is_sentencepiece());
  folder_.write("tokenizer.json",
                bytes_of(fs::path(MEDVQA_FIXTURES) / "text/qwen2_tokenizer.json"));
  EXPECT_FALSE(load(json::object()).is_sentencepiece());
  json vocabulary = {{"\xe2\x96\x81", 0},
                     {"a", 1},
                     {"\xe2\x96\x81"
                      "a",
                      2}};
  for (int b = 0; b < 256; ++b) {
    char piece[8];
    std::snprintf(piece, sizeof piece, "<0x%02X>", static_cast<unsigned>(b));
    vocabulary[piece] = 3 + b;
  }
  json file{{"model",
             {{"type", "BPE"},
              {"byte_fallback", true},
              {"vocab", vocabulary},
              {"merges", {"\xe2\x96\x81 a"}}}},
            {"added_tokens", {{{"id", 259}, {"content", "<s>"}, {"special", true}}}}};
  folder_.write("tokenizer.json", file.dump());
  const json settings{{"eos_token", "<s>"}, {"unk_token", nullptr}};
  EXPECT_EQ(load(settings).encode("a<s>ab").ids, (std::vector<std::int32_t>{2, 259, 1, 3 + 'b'}));
  EXPECT_EQ(load(settings).vocab_size(), 260);
  EXPECT_TRUE(load(settings).is_sentencepiece());
  // Beside it, the settings' own flags do not count: its post_processor does.
  const json flags{{"eos_token", "<s>"}, {"unk_token", nullptr}, {"add_eos_token", true}};
  EXPECT_TRUE(load(flags).special_tokens().after.empty());
  file["post_processor"] = json::parse(
      R"({"type": "TemplateProcessing", "special_tokens": {"<s>": {"ids": [259]}},
          "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}]})");
  folder_.write("tokenizer.json", file.dump());
  EXPECT_EQ(load(flags).special_tokens().before, (std::vector<std::int32_t>{259}));
  EXPECT_TRUE(load(flags).special_tokens().after.empty());
  // The byte-level reader still refuses it.
  EXPECT_THROW(Tokenizer::load(folder_.path() / "tokenizer.json"), UserError);
  file["model"]["vocab"].erase("<0x41>");
  folder_.write("tokenizer.json", file.dump());
  EXPECT_NE(error_of(settings).find("<0x41>"), std::string::npos);
  EXPECT_THROW(load({{"eos_token", "<s>"}}).encode("\xff"), UserError);
}

TEST_F(SentencePiece, FlagsSayWhatStandsAroundAText) {
  const auto around = [&](const json& settings) {
    const SpecialTokens found = load(settings).special_tokens();
    return std::make_pair(found.before, found.after);
  };
  using Ids = std::vector<std::int32_t>;
  EXPECT_EQ(around(json::object()), std::make_pair(Ids{}, Ids{}));
  EXPECT_EQ(around({{"add_bos_token", true}}), std::make_pair(Ids{1}, Ids{}));
  EXPECT_EQ(around({{"add_bos_token", false}, {"add_eos_token", true}}),
            std::make_pair(Ids{}, Ids{2}));
}

TEST_F(SentencePiece, AFolderWithoutATokenizerIsNamed) {
  fs::remove(folder_.path() / "tokenizer.model");
  EXPECT_NE(error_of(json::object()).find("tokenizer.json"), std::string::npos);
}

TEST_F(SentencePiece, WhatIsWrongIsNamed) {
  const auto expect = [&](const char* part, const json& settings) {
    EXPECT_NE(error_of(settings).find(part), std::string::npos) << error_of(settings);
    EXPECT_NE(error_of(settings).find("tokenizer_config.json"), std::string::npos);
  };
  EXPECT_EQ(error_of(json::object()), "no error");
  expect("the file", json::array());
  expect("tokenizer_class", {{"tokenizer_class", "T5Tokenizer"}});
  expect("legacy", {{"legacy", 1}});
  expect("bos_token", {{"bos_token", 1}});
  expect("additional_special_tokens", {{"additional_special_tokens", "x"}});
  expect("added_tokens_decoder.x", {{"added_tokens_decoder", {{"x", {{"content", "a"}}}}}});
  expect("added_tokens_decoder.1", {{"added_tokens_decoder", {{"1", {{"content", 5}}}}}});
  expect("id 7 for \"<s>\"", {{"added_tokens_decoder", {{"7", {{"content", "<s>"}}}}}});
  folder_.write("added_tokens.json", "{}");
  expect("added_tokens.json", json::object());
}

TEST_F(SentencePiece, BrokenModelsAreRefused) {
  const std::string whole = bytes_of(fixture("tokenizer.model"));
  const auto is_refused = [&](const std::string& bytes) {
    folder_.write("tokenizer.model", bytes);
    return error_of(json::object()).find("tokenizer.model") != std::string::npos;
  };
  EXPECT_TRUE(is_refused(""));
  EXPECT_TRUE(is_refused("IQ== 0\nIg== 1\n"));
  EXPECT_TRUE(is_refused(whole.substr(0, 1000)));
  EXPECT_TRUE(is_refused("\x0a\x7f\x0a"));
  EXPECT_FALSE(is_refused(whole));
  // Whatever is in the file: an error or a model, nothing worse.
  for (std::size_t i = 0; i < whole.size(); i += 7) {
    std::string damaged = whole;
    damaged[i] = static_cast<char>(damaged[i] ^ 0x55);
    text_detail::parse_sentencepiece_model(damaged);
    text_detail::parse_sentencepiece_model(whole.substr(0, i));
  }
}

TEST(SentencePieceModel, KnowsUnigram) {
  // One piece "a" and no trainer: the default type is Unigram.
  const auto model = text_detail::parse_sentencepiece_model(
      "\x0a\x03\x0a\x01"
      "a");
  ASSERT_TRUE(model);
  EXPECT_NE(model->model_type, text_detail::SentencePieceModel::kBpe);
  EXPECT_EQ(model->pieces.at(0).text, "a");
}

}  // namespace
}  // namespace medvqa
