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

TEST_F(ClassProcessorTest, SettingsWinOverThePostProcessor) {
  tokenizer_["post_processor"] = around({"<|begin_of_text|>"}, {});
  folder_.write("tokenizer_config.json", R"({"add_bos_token": false})");
  const auto processor = make();
  Ids expected = plain("a mass site 3:");
  EXPECT_EQ(processor->prepare(record("no")).ids, expected);
  folder_.write("tokenizer_config.json",
                R"({"add_eos_token": true, "eos_token": {"content": "<|eot_id|>"}})");
  expected.push_back(end_);
  EXPECT_EQ(make()->prepare(record("no")).ids, expected);
  folder_.write("tokenizer_config.json", R"({"add_eos_token": true, "eos_token": null})");
  expected.pop_back();
  EXPECT_EQ(make()->prepare(record("no")).ids, expected);
  folder_.write("tokenizer_config.json", R"({"add_bos_token": true, "bos_token": "<s>"})");
  expect_user_error(ExitCode::model, {"tokenizer_config.json", "bos_token", "<s>"},
                    [&] { make(); });
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

}  // namespace
}  // namespace medvqa::data
