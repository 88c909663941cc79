#include "medvqa/io/licence.h"

#include <nlohmann/json.hpp>

#include "medvqa/io/model_files.h"
#include "tests/io/io_test_support.h"

namespace medvqa::io {
namespace {

using nlohmann::json;

const json kLlama{{"model_type", "llama"}};
const json kMllama{{"model_type", "mllama"}, {"vision_config", json::object()}};

TEST(Licence, TheCardSpeaksFirst) {
  const TempFolder folder;
  folder.write("LICENSE", "LLAMA 3.1 COMMUNITY LICENSE AGREEMENT\nLlama 3.1 Version ...");
  EXPECT_EQ(find_licence(folder.path(), kLlama, "x").id, "llama3.1");
  folder.write("README.md", "---\nlicense: other\nlicense_name: x\n---\n");
  EXPECT_EQ(find_licence(folder.path(), kLlama, "x").id, "llama3.1");
  folder.write("README.md", "---\ntags: []\nlicense: apache-2.0\n---\n# license: mit\n");
  EXPECT_EQ(find_licence(folder.path(), kLlama, "Llama-3.1-8B").id, "apache-2.0");
  EXPECT_FALSE(find_licence(folder.path(), kLlama, "Llama-3.1-8B").llama());
  folder.write("README.md", "no head\nlicense: mit\n");
  EXPECT_EQ(find_licence(folder.path(), kMllama, "x").id, "llama3.1");
}

TEST(Licence, NamesOfLlamasTellTheirVersion) {
  const auto id = [](const std::string& name) { return find_licence({}, kLlama, name).id; };
  EXPECT_EQ(id("meta-llama/Llama-3.1-8B-Instruct"), "llama3.1");
  EXPECT_EQ(id("meta-llama/Meta-Llama-3-8B"), "llama3");
  EXPECT_EQ(id("unsloth/llama-3-8b-bnb-4bit"), "llama3");
  EXPECT_EQ(id("meta-llama/Llama-3.3-70B-Instruct"), "llama3.3");
  EXPECT_EQ(id("meta-llama/Llama-2-7b-hf"), "llama2");
  EXPECT_EQ(id("huggyllama/llama-30b"), "");
  EXPECT_EQ(id("TinyLlama/TinyLlama-1.1B"), "");
  EXPECT_EQ(id("models/base"), "");
}

TEST(Licence, FamiliesHaveTheirTerms) {
  const Licence vision = find_licence({}, kMllama, "");
  EXPECT_EQ(vision.id, "llama3.2");
  EXPECT_TRUE(vision.not_in_the_eu);
  EXPECT_EQ(vision.built_with, "Built with Llama");
  EXPECT_EQ(vision.notice,
            "Llama 3.2 is licensed under the Llama 3.2 Community License, Copyright (c) Meta "
            "Platforms, Inc. All Rights Reserved.\n");
  EXPECT_FALSE(find_licence({}, kLlama, "Llama-3.2-1B").not_in_the_eu);
  EXPECT_EQ(licence_of("llama3").built_with, "Built with Meta Llama 3");
  EXPECT_EQ(licence_of("llama2").built_with, "");
  EXPECT_TRUE(licence_of("llama2").llama());
  const auto qwen = [](int width) {
    return find_licence({}, {{"model_type", "qwen2_vl"}, {"text_config", {{"hidden_size", width}}}},
                        "")
        .id;
  };
  EXPECT_EQ(qwen(1536), "apache-2.0");
  EXPECT_EQ(qwen(3584), "apache-2.0");
  EXPECT_EQ(qwen(8192), "");
}

TEST(ModelFiles, TheFirstFolderThatHasAFileGivesIt) {
  const TempFolder folder;
  folder.write("base/tokenizer.json", "base");
  folder.write("base/generation_config.json", "{}");
  folder.write("adapter/tokenizer.json", "adapter");
  folder.write("adapter/chat_template.jinja", "adapter");
  AtomicFolder target(folder.path() / "out");
  copy_model_files(target, {folder.path() / "base", {}, folder.path() / "adapter"},
                   licence_of("llama3.2"), {"generation_config.json"});
  target.commit();
  EXPECT_EQ(folder.read("out/tokenizer.json"), "base");
  EXPECT_EQ(folder.read("out/chat_template.jinja"), "adapter");
  EXPECT_EQ(folder.read("out/generation_config.json"), "{}");
  EXPECT_EQ(folder.read("out/NOTICE"), licence_of("llama3.2").notice);
  folder.write("base/NOTICE", "Meta's own");
  AtomicFolder again(folder.path() / "again");
  copy_model_files(again, {folder.path() / "base"}, licence_of("llama3.2"));
  again.commit();
  EXPECT_EQ(folder.read("again/NOTICE"), "Meta's own");
  EXPECT_FALSE(std::filesystem::exists(folder.path() / "again/generation_config.json"));
}

TEST(ModelFiles, ACardsSectionsComeBack) {
  ModelCard card;
  card.recipe = {{"LoRA", "r 16"}};
  card.data = "vqa-rad";
  card.scores = {{"accuracy", "0.5"}};
  const TempFolder folder;
  const auto readme = folder.write("README.md", model_card_text(card));
  ModelCard other;
  other.sections = card_sections(readme);
  EXPECT_EQ(model_card_text(other), model_card_text(card));
  EXPECT_NE(other.sections.find("| accuracy | 0.5 |"), std::string::npos);
  EXPECT_EQ(card_sections(folder.write("other.md", "# A card\n## Recipe\n\n## Licence\n")), "");
  EXPECT_EQ(card_sections(folder.path() / "none.md"), "");
}

}  // namespace
}  // namespace medvqa::io
