#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "medvqa/data/processor.h"
#include "medvqa/text/tokenizer.h"
#include "tests/data/data_test_support.h"

namespace medvqa::data {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// A model folder with a tokenizer of Llama-3's form and its special tokens.
class LlamaProcessorTest : public ::testing::Test {
 protected:
  LlamaProcessorTest() {
    std::ifstream file(fs::path(MEDVQA_FIXTURES) / "text/llama3_tokenizer.json");
    tokenizer_ = json::parse(file);
    std::int64_t id = 0;
    for (const json& token : tokenizer_["added_tokens"]) {
      id = std::max(id, token.at("id").get<std::int64_t>() + 1);
    }
    for (const char* text : {"<|begin_of_text|>", "<|finetune_right_pad_id|>",
                             "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}) {
      json token = tokenizer_["added_tokens"][0];
      token["id"] = id++;
      token["content"] = text;
      tokenizer_["added_tokens"].push_back(token);
    }
    folder_.write("tokenizer.json", tokenizer_.dump());
    config_ = {{"model_type", "llama"}, {"text_config", {{"vocab_size", id}}}};
  }

  std::unique_ptr<Processor> make(const ProcessorOptions& options = {}) {
    return make_processor(folder_.path(), config_, options);
  }
  std::string text_of(const Example& example) {
    return Tokenizer::load(folder_.path() / "tokenizer.json").decode(example.ids, false);
  }

  TempFolder folder_;
  json tokenizer_, config_;
};

TEST_F(LlamaProcessorTest, AConversationWithoutPictures) {
  const auto processor = make();
  const Example example =
      processor->prepare(make_record("r", "", " what\n", "\xe2\x80\x83yes \x1f"));
  EXPECT_EQ(text_of(example),
            "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nwhat<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\nyes<|eot_id|>");
  EXPECT_EQ(example.image_tokens, 0);
  const std::string shown = processor->describe(example);
  EXPECT_NE(shown.find("[[yes<|eot_id|>]]"), std::string::npos) << shown;
  std::vector<float> patches;
  processor->load_patches(example, patches);
  EXPECT_TRUE(patches.empty());
  EXPECT_EQ(processor->patch_columns(), 0);
  EXPECT_EQ(max_image_pixels(folder_.path(), config_, {}), 0);
}

// From 3.1 on the model's own template says the date.
TEST_F(LlamaProcessorTest, TheTemplateFileChoosesTheForm) {
  ProcessorOptions options;
  options.prompt.system = " Be brief. ";
  const Record record = make_record("r", "");
  EXPECT_NE(text_of(make(options)->prepare(record))
                .find("<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief."),
            std::string::npos);
  folder_.write("tokenizer_config.json",
                R"({"chat_template": "... \"Cutting Knowledge Date: December 2023\\n\" ..."})");
  EXPECT_NE(text_of(make()->prepare(record)).find("Today Date: 26 Jul 2024\n\n<|eot_id|>"),
            std::string::npos);
  EXPECT_NE(text_of(make(options)->prepare(record)).find("2024\n\nBe brief.<|eot_id|>"),
            std::string::npos);
}

TEST_F(LlamaProcessorTest, APictureIsRefused) {
  const auto processor = make();
  expect_user_error(ExitCode::data, {"record r", "scan.png", "no eyes"},
                    [&] { processor->prepare(make_record("r", "scan.png")); });
}

TEST_F(LlamaProcessorTest, WrongTokenizersAreNamed) {
  config_["text_config"]["vocab_size"] = 20;
  expect_user_error(ExitCode::model, {"\"vocab_size\" is 20"}, [&] { make(); });
  tokenizer_["added_tokens"].erase(tokenizer_["added_tokens"].size() - 1);
  folder_.write("tokenizer.json", tokenizer_.dump());
  config_["text_config"]["vocab_size"] = 200000;
  expect_user_error(ExitCode::model, {"tokenizer.json", "<|eot_id|>"}, [&] { make(); });
}

// A folder as Llama 2's and TinyLlama's: tokenizer.model and settings with a template.
class SentencePieceProcessorTest : public ::testing::Test {
 protected:
  SentencePieceProcessorTest() {
    fs::copy(fs::path(MEDVQA_FIXTURES) / "text/sentencepiece/tokenizer.model", folder_.path());
    std::ifstream file(fs::path(MEDVQA_FIXTURES) / "text/sentencepiece/templates.json");
    templates_ = json::parse(file);
    config_ = {{"model_type", "llama"}, {"text_config", {{"vocab_size", 640}}}};
  }
  std::unique_ptr<Processor> make(const json& settings) {
    folder_.write("tokenizer_config.json", settings.dump());
    return make_processor(folder_.path(), config_, {});
  }
  TempFolder folder_;
  json templates_, config_;
};

TEST_F(SentencePieceProcessorTest, TheTemplateIsRecognised) {
  const Record record = make_record("r", "", "What is it?", "A film");
  const auto llama2 = make({{"chat_template", templates_.at("llama2")}, {"legacy", true}});
  EXPECT_EQ(llama2->describe(llama2->prepare(record)),
            "<s> [INST] What is it? [/INST][[A film </s>]]");
  const auto named = make({{"chat_template",
                            {{{"name", "default"}, {"template", templates_.at("zephyr")}},
                             {{"name", "tools"}, {"template", "x"}}}}});
  const Example example = named->prepare(record);
  EXPECT_EQ(named->describe(example), "<|user|>\nWhat is it?</s>\n<|assistant|>\n[[A film</s>]]\n");
  EXPECT_EQ(example.labels.back(), kNoLabel);
  folder_.write("chat_template.jinja", templates_.at("llama2").get<std::string>());
  const auto file = make({{"chat_template", templates_.at("zephyr")}});
  EXPECT_NE(file->describe(file->prepare(record)).find("[INST]"), std::string::npos);
}

TEST_F(SentencePieceProcessorTest, ThePaddingTokenIsKnown) {
  EXPECT_EQ(padding_token(folder_.path()), std::nullopt);
  make({{"chat_template", templates_.at("llama2")}, {"unk_token", "<unk>"}});
  EXPECT_EQ(padding_token(folder_.path()), 0);
  make({{"chat_template", templates_.at("llama2")}, {"pad_token", {{"content", "</s>"}}}});
  EXPECT_EQ(padding_token(folder_.path()), 2);
  fs::remove(folder_.path() / "tokenizer.model");
  EXPECT_EQ(padding_token(folder_.path()), std::nullopt);
}

TEST_F(SentencePieceProcessorTest, OtherTemplatesAreRefused) {
  for (const json& settings : {json::object(), json{{"chat_template", "{{ messages }}"}}}) {
    expect_user_error(ExitCode::model, {"tokenizer_config.json", "chat_template", "TinyLlama"},
                      [&] { make(settings); });
  }
  config_["text_config"]["vocab_size"] = 600;
  expect_user_error(ExitCode::model, {"\"vocab_size\" is 600", "639"}, [&] {
    make({{"chat_template", templates_.at("zephyr")}});
  });
}

}  // namespace
}  // namespace medvqa::data
