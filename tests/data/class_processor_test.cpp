#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "medvqa/data/dataset.h"
#include "medvqa/text/tokenizer.h"
#include "tests/data/data_test_support.h"

namespace medvqa::data {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using Ids = std::vector<std::int32_t>;

// A model folder with a tokenizer of Llama-3's form, whose post_processor says nothing.
class ClassProcessorTest : public ::testing::Test {
 protected:
  ClassProcessorTest() {
    std::ifstream file(fs::path(MEDVQA_FIXTURES) / "text/llama3_tokenizer.json");
    tokenizer_ = json::parse(file);
    tokenizer_.erase("post_processor");
    json token = tokenizer_["added_tokens"][0];
    for (const json& known : tokenizer_["added_tokens"]) {
      next_ = std::max(next_, known.at("id").get<std::int32_t>() + 1);
    }
    for (const char* text : {"<|begin_of_text|>", "<|eot_id|>"}) {
      token["id"] = next_++;
      token["content"] = text;
      tokenizer_["added_tokens"].push_back(token);
    }
    begin_ = next_ - 2;
    end_ = next_ - 1;
    config_ = {{"model_type", "llama"}, {"text_config", {{"vocab_size", next_}}}};
    options_.prompt.prompt = "{text} site {site}:";
    options_.classes = Classes{"label", {"yes", "no"}, {"A", "B"}};
  }

  std::unique_ptr<Processor> make() {
    folder_.write("tokenizer.json", tokenizer_.dump());
    return make_processor(folder_.path(), config_, options_);
  }
  static Record record(const std::string& label) {
    Record r;
    r.id = "r";
    r.place = "d.jsonl, row 1";
    r.columns = {{"text", "a mass"}, {"site", "3"}, {"label", label}};
    return r;
  }
  Ids plain(const std::string& text) {
    return Tokenizer::load(folder_.path() / "tokenizer.json").encode(text).ids;
  }
  json around(const std::vector<const char*>& before, const std::vector<const char*>& after) const {
    json p{{"type", "TemplateProcessing"}, {"single", json::array()}};
    const auto add = [&](const std::vector<const char*>& names) {
      for (const char* name : names) {
        p["single"].push_back({{"SpecialToken", {{"id", name}, {"type_id", 0}}}});
        const std::int32_t id = std::string(name) == "<|eot_id|>" ? end_ : begin_;
        p["special_tokens"][name] = {{"id", name}, {"ids", {id}}, {"tokens", {name}}};
      }
    };
    add(before);
    p["single"].push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
    add(after);
    return p;
  }

  TempFolder folder_;
  json tokenizer_, config_;
  std::int32_t next_ = 0, begin_ = 0, end_ = 0;
  ProcessorOptions options_;
};

TEST_F(ClassProcessorTest, ThePromptIsTheWholeText) {
  const auto processor = make();
  const Example e = processor->prepare(record("no"));
  EXPECT_EQ(e.ids, plain("a mass site 3:"));
  EXPECT_EQ(e.class_index, 1);
  EXPECT_EQ(e.label_count(), 1);
  EXPECT_EQ(e.labels, Ids(e.ids.size(), kNoLabel));
  EXPECT_EQ(processor->prepare(record("no"), "yes").class_index, 0);
  EXPECT_EQ(processor->content(record("no")),
            (std::pair<std::string, std::string>("a mass site 3:", "no")));
  EXPECT_EQ(processor->describe(e), "a mass site 3:[[class \"no\"]]");
  EXPECT_EQ(processor->patch_columns(), 0);
  const Example f = processor->prepare(record("yes"));
  const Example* both[] = {&e, &f};
  EXPECT_EQ(pack(*processor, both, true).classes, (Ids{1, 0}));
}

TEST_F(ClassProcessorTest, SpecialTokensStandWhereThePostProcessorPutsThem) {
  Ids expected = [&] {
    make();
    return plain("a mass site 3:");
  }();
  expected.insert(expected.begin(), begin_);
  const json byte_level{{"type", "ByteLevel"}, {"trim_offsets", false}};
  tokenizer_["post_processor"] = {
      {"type", "Sequence"},
      {"processors", json::array({byte_level, around({"<|begin_of_text|>"}, {})})}};
  EXPECT_EQ(make()->prepare(record("no")).ids, expected);
  tokenizer_["post_processor"] = around({"<|begin_of_text|>"}, {"<|eot_id|>"});
  expected.push_back(end_);
  EXPECT_EQ(make()->prepare(record("no")).ids, expected);
}

TEST_F(ClassProcessorTest, SettingsOfTokenizerConfigDoNotCount) {
  folder_.write("tokenizer_config.json",
                R"({"add_bos_token": true, "bos_token": "<|begin_of_text|>"})");
  const auto processor = make();
  EXPECT_EQ(processor->prepare(record("no")).ids, plain("a mass site 3:"));
}

TEST_F(ClassProcessorTest, APostProcessorThatCannotBeFollowedIsRefused) {
  for (const char* text :
       {R"({"type": "BertProcessing"})", R"({"type": "TemplateProcessing", "single": []})",
        R"({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x"}},
            {"Sequence": {"id": "A"}}], "special_tokens": {}})",
        R"({"type": "Sequence", "processors": 3})", "7"}) {
    tokenizer_["post_processor"] = json::parse(text);
    expect_user_error(ExitCode::model, {"tokenizer.json", "post_processor"}, [&] { make(); });
  }
}

TEST_F(ClassProcessorTest, EveryClassHasATokenOfItsOwn) {
  make();
  EXPECT_EQ(class_tokens(folder_.path(), *options_.classes), (Ids{plain("A")[0], plain("B")[0]}));
  options_.classes->texts = {"A", "xyzzy plugh"};
  expect_user_error(ExitCode::config, {"xyzzy plugh", "\"no\"", "exactly one"}, [&] { make(); });
  options_.classes->texts = {"A", ""};
  expect_user_error(ExitCode::config, {"\"no\"", "0 tokens"}, [&] { make(); });
  options_.classes->texts = {"A", "A"};
  expect_user_error(ExitCode::config, {"\"no\"", "\"yes\"", "of its own"}, [&] { make(); });
}

TEST_F(ClassProcessorTest, WrongRecordsAreNamed) {
  const auto processor = make();
  expect_user_error(ExitCode::data, {"record r", "\"maybe\"", "yes, no"},
                    [&] { processor->prepare(record("maybe")); });
  Record bare = record("no");
  bare.columns.erase("label");
  expect_user_error(ExitCode::data, {"d.jsonl, row 1", "\"label\"", "site, text"},
                    [&] { processor->prepare(bare); });
  bare = record("no");
  bare.columns.erase("site");
  expect_user_error(ExitCode::config, {"{site}"}, [&] { processor->prepare(bare); });
}

// A folder as Llama 2's, but without a chat template: none is needed.
class SentencePieceClassTest : public ::testing::Test {
 protected:
  SentencePieceClassTest() {
    fs::copy(fs::path(MEDVQA_FIXTURES) / "text/sentencepiece/tokenizer.model", folder_.path());
    options_.prompt.prompt = "{text}:";
    options_.classes = Classes{"label", {"r", "l"}, {" right", "lung"}};
  }
  std::unique_ptr<Processor> make(const json& settings) {
    folder_.write("tokenizer_config.json", settings.dump());
    const json config{{"model_type", "llama"}, {"text_config", {{"vocab_size", 640}}}};
    return make_processor(folder_.path(), config, options_);
  }
  TempFolder folder_;
  ProcessorOptions options_;
};

TEST_F(SentencePieceClassTest, ThePromptIsTheWholeText) {
  Record record;
  record.id = "r";
  record.columns = {{"text", "the lung"}, {"label", "l"}};
  const Example plain = make(json::object())->prepare(record);
  EXPECT_EQ(plain.ids, Tokenizer::load_folder(folder_.path()).encode("the lung:").ids);
  EXPECT_EQ(plain.class_index, 1);
  EXPECT_EQ(make(json::object())->describe(plain), "the lung:[[class \"l\"]]");
  Ids expected = plain.ids;
  expected.insert(expected.begin(), 1);
  EXPECT_EQ(make({{"add_bos_token", true}})->prepare(record).ids, expected);
  expected.push_back(2);
  EXPECT_EQ(make({{"add_bos_token", true}, {"add_eos_token", true}})->prepare(record).ids,
            expected);
}

// A word takes the mark of the blank before it along, whether there is one or not.
TEST_F(SentencePieceClassTest, EveryClassHasATokenOfItsOwn) {
  make(json::object());
  const Tokenizer tokenizer = Tokenizer::load_folder(folder_.path());
  EXPECT_EQ(
      class_tokens(folder_.path(), *options_.classes),
      (Ids{*tokenizer.token_id("\xe2\x96\x81right"), *tokenizer.token_id("\xe2\x96\x81lung")}));
  options_.classes->texts = {"right", " right"};
  expect_user_error(ExitCode::config, {"\"r\"", "\"l\"", "of its own"},
                    [&] { make(json::object()); });
  options_.classes->texts = {"right", "1"};
  expect_user_error(ExitCode::config, {"\"1\"", "\"l\"", "2 tokens", "a short word"},
                    [&] { make(json::object()); });
}

}  // namespace
}  // namespace medvqa::data
