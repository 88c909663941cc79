// Against `tokenizers` (tests/fixtures/text/cases.json says which release). The whole of Unicode
// and the real vocabulary are compared by scripts/parity_inputs.py.
#include "medvqa/text/tokenizer.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "medvqa/core/error.h"

namespace medvqa {
namespace {

using nlohmann::json;

std::filesystem::path text_fixture(const std::string& name) {
  return std::filesystem::path(MEDVQA_FIXTURES) / "text" / name;
}

json read_json(const std::filesystem::path& path) {
  std::ifstream file(path);
  return json::parse(file);
}

// The reference counts characters: bytes [b, e) touch the characters [first, last).
std::vector<std::vector<std::size_t>> in_characters(const std::string& text, const Encoding& e) {
  std::vector<std::size_t> character{};
  std::size_t count = 0;
  for (const char c : text) {
    if ((static_cast<unsigned char>(c) & 0xc0) != 0x80) ++count;
    character.push_back(count - 1);
  }
  std::vector<std::vector<std::size_t>> result;
  for (const Span& s : e.offsets) {
    result.push_back({character.at(s.begin), character.at(s.end - 1) + 1});
  }
  return result;
}

class TokenizerCases : public testing::TestWithParam<const char*> {};

TEST_P(TokenizerCases, EqualsTheReference) {
  const std::string name = GetParam();
  const Tokenizer tokenizer = Tokenizer::load(text_fixture(name + "_tokenizer.json"));
  const json cases = read_json(text_fixture("cases.json"))["cases"][name];
  ASSERT_GE(cases.size(), 25u);
  for (const json& entry : cases) {
    const std::string text = entry["text"];
    const Encoding encoding = tokenizer.encode(text);
    EXPECT_EQ(encoding.ids, entry["ids"].get<std::vector<std::int32_t>>()) << text;
    EXPECT_EQ(tokenizer.decode(encoding.ids, false), entry["decoded"].get<std::string>());
    EXPECT_EQ(tokenizer.decode(encoding.ids, true), entry["decoded_plain"].get<std::string>());
    ASSERT_EQ(encoding.offsets.size(), encoding.ids.size());
    if (entry["same_after_nfc"].get<bool>()) {
      const auto expected = entry["offsets"].get<std::vector<std::vector<std::size_t>>>();
      EXPECT_EQ(in_characters(text, encoding), expected) << text;
    }
    for (std::size_t i = 0; i + 1 < encoding.offsets.size(); ++i) {
      EXPECT_LE(encoding.offsets[i].begin, encoding.offsets[i + 1].begin);
      EXPECT_LE(encoding.offsets[i].end, encoding.offsets[i + 1].end);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Forms, TokenizerCases, testing::Values("qwen2", "llama3", "gpt2"));

TEST(Tokenizer, ByteOffsetsAreExactInsideACharacter) {
  const Tokenizer tokenizer = Tokenizer::load(text_fixture("qwen2_tokenizer.json"));
  const Encoding encoding = tokenizer.encode("\xf0\x9f\xab\xa0");
  ASSERT_EQ(encoding.ids.size(), 4u);
  for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(encoding.offsets[i], (Span{i, i + 1}));
}

TEST(Tokenizer, OffsetsCoverTheClusterThatNfcChanges) {
  const Tokenizer tokenizer = Tokenizer::load(text_fixture("qwen2_tokenizer.json"));
  const std::string text = "1e\xcc\x81 2";
  const Encoding encoding = tokenizer.encode(text);
  ASSERT_EQ(encoding.ids.size(), tokenizer.encode("1\xc3\xa9 2").ids.size());
  EXPECT_EQ(encoding.offsets[0], (Span{0, 1}));
  EXPECT_EQ(encoding.offsets[1].begin, 1u);
  EXPECT_EQ(encoding.offsets[1].end, 4u);
  EXPECT_EQ(encoding.offsets.back(), (Span{5, 6}));
}

TEST(Tokenizer, KnowsItsVocabulary) {
  const Tokenizer tokenizer = Tokenizer::load(text_fixture("qwen2_tokenizer.json"));
  const auto id = tokenizer.token_id("<|im_end|>");
  ASSERT_TRUE(id.has_value());
  EXPECT_EQ(tokenizer.vocab_size(), 360 + 8);
  EXPECT_EQ(tokenizer.token_id("not a token"), std::nullopt);
  const std::vector<std::int32_t> ids{*id, -1, 1 << 20};
  EXPECT_EQ(tokenizer.decode(ids, false), "<|im_end|>");
  EXPECT_EQ(tokenizer.decode(ids, true), "");
}

TEST(Tokenizer, RefusesInvalidUtf8) {
  const Tokenizer tokenizer = Tokenizer::load(text_fixture("qwen2_tokenizer.json"));
  for (const char* text : {"a\xff", "\xc3", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xc0\xaf"}) {
    try {
      tokenizer.encode(text);
      FAIL() << "accepted";
    } catch (const UserError& error) {
      EXPECT_EQ(error.code(), ExitCode::data);
    }
  }
}

TEST(Tokenizer, LongWordsTakeNoQuadraticTime) {
  const Tokenizer tokenizer = Tokenizer::load(text_fixture("qwen2_tokenizer.json"));
  std::string text;
  for (int i = 0; i < 200'000; ++i) text += "thesire"[i % 7];
  const Encoding encoding = tokenizer.encode(text);
  EXPECT_EQ(encoding.offsets.back().end, text.size());
}

TEST(Tokenizer, ThreadsMayShareIt) {
  const Tokenizer tokenizer = Tokenizer::load(text_fixture("qwen2_tokenizer.json"));
  const std::string text = "Is there a pleural effusion in the left lung base? No.";
  const auto expected = tokenizer.encode(text).ids;
  std::vector<std::thread> threads;
  std::vector<int> wrong(4, 0);
  for (std::size_t t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 200; ++i) {
        const std::string word = " w" + std::to_string(i % 17);
        wrong[t] += tokenizer.encode(text + word).ids.size() < expected.size();
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4, 0));
}

std::string error_of(const std::function<void(json&)>& damage) {
  json file = read_json(text_fixture("qwen2_tokenizer.json"));
  damage(file);
  const auto path = std::filesystem::temp_directory_path() /
                    ("medvqa_tokenizer_" + std::to_string(::getpid()) + ".json");
  std::ofstream(path) << file.dump();
  std::string message = "no error";
  try {
    Tokenizer::load(path);
  } catch (const UserError& error) {
    EXPECT_EQ(error.code(), ExitCode::model);
    message = error.what();
    EXPECT_EQ(message.find('\n'), std::string::npos);
    EXPECT_EQ(message.rfind(path.string(), 0), 0u);
  }
  std::filesystem::remove(path);
  return message;
}

TEST(Tokenizer, NamesTheKeyThatIsWrong) {
  const auto expect_key = [](const char* key, const std::function<void(json&)>& damage) {
    EXPECT_NE(error_of(damage).find(key), std::string::npos) << key << ": " << error_of(damage);
  };
  EXPECT_EQ(error_of([](json&) {}), "no error");
  expect_key("the file", [](json& f) { f = "text"; });
  expect_key("normalizer", [](json& f) { f["normalizer"] = {{"type", "Lowercase"}}; });
  expect_key("pre_tokenizer", [](json& f) { f.erase("pre_tokenizer"); });
  expect_key("pre_tokenizer.pretokenizers[0].pattern.Regex",
             [](json& f) { f["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "("; });
  expect_key("behavior",
             [](json& f) { f["pre_tokenizer"]["pretokenizers"][0]["behavior"] = "Removed"; });
  expect_key("model.type", [](json& f) { f["model"]["type"] = "Unigram"; });
  expect_key("model.dropout", [](json& f) { f["model"]["dropout"] = 0.1; });
  expect_key("model.vocab", [](json& f) { f["model"]["vocab"]["a"] = -1; });
  expect_key("model.vocab", [](json& f) { f["model"]["vocab"]["a"] = 1'000'000'000'000; });
  expect_key("model.vocab", [](json& f) { f["model"]["vocab"].erase("a"); });
  expect_key("model.merges[0]", [](json& f) { f["model"]["merges"][0] = "abc"; });
  expect_key("model.merges[1]", [](json& f) { f["model"]["merges"][1] = {"a", "nosuch"}; });
  expect_key("added_tokens[2].content", [](json& f) { f["added_tokens"][2].erase("content"); });
  expect_key("added_tokens[0]", [](json& f) { f["added_tokens"][0]["id"] = 5; });
  expect_key("added_tokens[0].id", [](json& f) { f["added_tokens"][0]["id"] = "x"; });
  expect_key("decoder", [](json& f) { f["decoder"] = {{"type", "Metaspace"}}; });
}

TEST(Tokenizer, RefusesFilesThatAreNotThereOrNotJson) {
  EXPECT_THROW(Tokenizer::load("/nonexistent/tokenizer.json"), UserError);
  EXPECT_THROW(Tokenizer::load(std::filesystem::path(MEDVQA_FIXTURES) / "image" / "rgb8.png"),
               UserError);
}

}  // namespace
}  // namespace medvqa
