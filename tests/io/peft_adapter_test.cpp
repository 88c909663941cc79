#include "medvqa/io/peft_adapter.h"

#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "medvqa/io/sha256.h"
#include "tests/io/io_test_support.h"

namespace medvqa::io {
namespace {

namespace fs = std::filesystem;
const fs::path kFixtures = MEDVQA_FIXTURES;

TEST(PeftAdapter, ReadsWhatPeftWrote) {
  const PeftAdapter adapter(kFixtures / "io" / "llama_nf4" / "adapter", NameStyle::plain);
  EXPECT_EQ(adapter.settings().r, 4);
  EXPECT_EQ(adapter.settings().alpha, 8);
  EXPECT_TRUE(adapter.settings().rslora);
  EXPECT_EQ(adapter.settings().scaling(), 4.0);
  ASSERT_EQ(adapter.modules().size(), 2u);
  const AdapterModule& down = adapter.modules().at("model.layers.0.mlp.down_proj");
  EXPECT_EQ(down.a.shape, (std::vector<std::int64_t>{4, 128}));
  EXPECT_EQ(down.b.shape, (std::vector<std::int64_t>{64, 4}));
}

const char* const kQkv = "model.visual.blocks.0.attn.qkv";
const char* const kUp = "model.language_model.layers.1.mlp.up_proj";

struct Matrices {
  std::vector<float> a = {1, 2, 3, 4, 5, 6};        // [2, 3]
  std::vector<float> b = {1, 2, 3, 4, 5, 6, 7, 8};  // [4, 2]
  std::vector<float> zero = std::vector<float>(8, 0.0f);

  AdapterToWrite adapter() const {
    AdapterToWrite out;
    out.settings = {2, 8, 0.0, false, "Qwen/Qwen2-VL-2B-Instruct"};
    out.name_style = NameStyle::qwen2_vl;
    out.modules = {{kUp, 3, 4, a, b}, {kQkv, 3, 4, a, zero}};
    return out;
  }
};

const std::map<std::string, std::pair<std::int64_t, std::int64_t>> kExpected = {{kQkv, {4, 3}},
                                                                                {kUp, {4, 3}}};

TEST(PeftAdapter, WritesBothKeyStylesAndReadsThemBack) {
  const Matrices matrices;
  for (const KeyStyle style : {KeyStyle::current, KeyStyle::legacy}) {
    const TempFolder folder;
    AdapterToWrite adapter = matrices.adapter();
    adapter.key_style = style;
    write_peft_adapter(folder.path() / "adapter", adapter);
    const SafetensorsFile file(folder.path() / "adapter" / "adapter_model.safetensors");
    EXPECT_EQ(file.metadata().at("format"), "pt");
    EXPECT_TRUE(file.contains(style == KeyStyle::current
                                  ? "base_model.model.model.visual.blocks.0.attn.qkv.lora_A.weight"
                                  : "base_model.model.visual.blocks.0.attn.qkv.lora_A.weight"));
    EXPECT_TRUE(file.contains(
        style == KeyStyle::current
            ? "base_model.model.model.language_model.layers.1.mlp.up_proj.lora_B.weight"
            : "base_model.model.model.layers.1.mlp.up_proj.lora_B.weight"));
    const PeftAdapter read(folder.path() / "adapter", NameStyle::qwen2_vl);
    EXPECT_EQ(read.settings().scaling(), 4.0);
    EXPECT_EQ(std::memcmp(read.modules().at(kUp).b.bytes.data(), matrices.b.data(), 32), 0);
  }
}

TEST(PeftAdapter, FolderIsCompleteAndProvesItself) {
  const Matrices matrices;
  const TempFolder folder;
  folder.write("base/tokenizer.json", "{}");
  folder.write("base/LICENSE", "text");
  folder.write("base/README.md", "---\nlicense: apache-2.0\nbase_model: x\n---\n# Base\n");
  AdapterToWrite adapter = matrices.adapter();
  adapter.base_folder = folder.path() / "base";
  adapter.card.licence = find_licence(adapter.base_folder, {{"model_type", "qwen2_vl"}}, "");
  adapter.card.scores = {{"accuracy", "0.5 [0.4, 0.6]"}, {"BLEU-1", ""}};
  adapter.add_files = [](const fs::path& aside) {
    write_file_atomically(aside / "head.safetensors", std::string_view("h"));
  };
  write_peft_adapter(folder.path() / "adapter", adapter);
  EXPECT_EQ(folder.read("adapter/tokenizer.json"), "{}");
  const std::string manifest = folder.read("adapter/manifest.json");
  for (const char* name : {"README.md", "LICENSE", "head.safetensors", "adapter_config.json"}) {
    EXPECT_NE(manifest.find(name), std::string::npos) << name;
  }
  const std::string card = folder.read("adapter/README.md");
  for (const char* text :
       {"library_name: peft", "base_model: \"Qwen/Qwen2-VL-2B-Instruct\"", "license: apache-2.0",
        "pipeline_tag: image-text-to-text", "0.5 [0.4, 0.6]", "| BLEU-1 | not reported |",
        "Not validated for clinical use"}) {
    EXPECT_NE(card.find(text), std::string::npos) << text;
  }
  const auto config = nlohmann::json::parse(folder.read("adapter/adapter_config.json"));
  EXPECT_EQ(config.at("target_modules"), (std::vector<std::string>{kUp, kQkv}));
  EXPECT_EQ(config.at("lora_alpha").dump(), "8");

  const fs::path path = folder.path() / "adapter";
  const AdapterProof proof = prove_peft_adapter(path, NameStyle::qwen2_vl, kExpected);
  EXPECT_EQ(proof.modules, 2u);
  EXPECT_EQ(proof.zero_b, std::vector<std::string>{kQkv});
  EXPECT_EQ(proof.smallest_b_norm, 0.0);
  auto expected = kExpected;
  expected["model.extra"] = {1, 1};
  expect_user_error(ExitCode::model, {"model.extra", "missing"},
                    [&] { prove_peft_adapter(path, NameStyle::qwen2_vl, expected); });
  expected = kExpected;
  expected[kUp] = {4, 5};
  expect_user_error(ExitCode::model, {kUp, "[4, 3]", "[4, 5]"},
                    [&] { prove_peft_adapter(path, NameStyle::qwen2_vl, expected); });
  expected.erase(kUp);
  expect_user_error(ExitCode::model, {kUp, "not one of the model"},
                    [&] { prove_peft_adapter(path, NameStyle::qwen2_vl, expected); });
}

TEST(PeftAdapter, LlamaLicencesShowTheirNotice) {
  ModelCard card;
  card.licence = licence_of("llama3.2");
  const std::string text = model_card_text(card, {});
  for (const char* part : {"Built with Llama.", "license: llama3.2",
                           "Llama 3.2 is licensed under the Llama 3.2 Community License"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part;
  }
}

TEST(PeftAdapter, UnsupportedSettingsAreNamed) {
  const TempFolder folder;
  const Matrices matrices;
  write_peft_adapter(folder.path() / "adapter", matrices.adapter());
  const auto good = nlohmann::json::parse(folder.read("adapter/adapter_config.json"));
  const auto fails = [&](const nlohmann::json& patch, const std::vector<std::string>& parts) {
    nlohmann::json config = good;
    config.merge_patch(patch);
    for (const auto& item : patch.items()) {
      if (item.value() == "remove") config.erase(item.key());
    }
    folder.write("adapter/adapter_config.json", config.dump());
    std::vector<std::string> all = parts;
    all.push_back("adapter");
    expect_user_error(ExitCode::model, all,
                      [&] { PeftAdapter a(folder.path() / "adapter", NameStyle::qwen2_vl); });
  };
  fails({{"peft_type", "LOHA"}}, {"peft_type \"LOHA\""});
  fails({{"use_dora", true}}, {"\"use_dora\" is true"});
  fails({{"alpha_pattern", {{"q_proj", 3}}}}, {"\"alpha_pattern\""});
  fails({{"rank_pattern", {{"q_proj", 3}}}}, {"\"rank_pattern\""});
  fails({{"modules_to_save", {"lm_head"}}}, {"\"modules_to_save\""});
  fails({{"bias", "all"}}, {"bias \"all\""});
  fails({{"r", 0}}, {"\"r\"", "0"});
  fails({{"r", 3}}, {"lora_", "r = 3"});
  fails({{"r", "remove"}}, {"\"r\" is missing"});
  fails({{"lora_alpha", "x"}}, {"\"lora_alpha\" must be a number"});
  fails({{"fan_in_fan_out", true}}, {"\"fan_in_fan_out\""});
}

TEST(PeftAdapter, StrangeTensorsAreNamed) {
  const auto fails = [](const std::vector<TensorSpec>& tensors,
                        const std::vector<std::string>& parts) {
    const TempFolder folder;
    folder.write("adapter_config.json", R"({"peft_type":"LORA","r":1,"lora_alpha":1})");
    const std::string data(64, '\0');
    std::vector<std::span<const std::byte>> bytes;
    for (const TensorSpec& t : tensors) bytes.push_back(bytes_of(data).subspan(0, t.bytes()));
    write_safetensors(folder.path() / "adapter_model.safetensors", tensors, bytes);
    expect_user_error(ExitCode::model, parts,
                      [&] { PeftAdapter a(folder.path(), NameStyle::plain); });
  };
  const std::string key = "base_model.model.q_proj";
  const TensorSpec a{key + ".lora_A.weight", DType::f32, {1, 2}};
  fails({}, {"no LoRA matrix"});
  fails({a}, {"\"q_proj\" has no lora_B"});
  fails({a, {key + ".lora_B.weight", DType::f32, {3, 2}}}, {"lora_B of \"q_proj\"", "[3, 2]"});
  fails({a, {key + ".lora_B.weight", DType::i32, {3, 1}}}, {"lora_B", "i32"});
  fails({a, {key + ".lora_A.default.weight", DType::f32, {1, 2}}}, {"twice"});
  fails({a, {key + ".lora_magnitude_vector", DType::f32, {2}}}, {"lora_magnitude_vector"});
  fails({{"q_proj.lora_A.weight", DType::f32, {1, 2}}}, {"is no LoRA matrix"});
  const TempFolder empty;
  expect_user_error(ExitCode::model, {"adapter_model.safetensors", "missing"},
                    [&] { PeftAdapter x(empty.path(), NameStyle::plain); });
}

}  // namespace
}  // namespace medvqa::io
