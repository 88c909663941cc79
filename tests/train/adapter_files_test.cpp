#include "medvqa/train/adapter_files.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <set>

#include "tests/train/train_test_support.h"

namespace medvqa::train {
namespace {

// torch.nn.init.uniform_ on a CPU: 24 random bits a value, in f32.
std::vector<float> torch_uniform(std::mt19937& engine, std::int64_t n, float bound) {
  std::vector<float> values;
  for (std::int64_t i = 0; i < n; ++i) {
    const float u = static_cast<float>(engine() & 0xFFFFFFu) * 0x1p-24f;
    values.push_back(u * (bound - -bound) + -bound);
  }
  return values;
}

// As PEFT makes one module: A and B are drawn in the constructors, then A again.
std::vector<float> peft_a(std::mt19937& engine, std::int64_t r, std::int64_t in, std::int64_t out) {
  engine.discard(static_cast<std::uint64_t>(r * in + out * r));
  return torch_uniform(engine, r * in, 1 / std::sqrt(static_cast<float>(in)));
}

// reference-models.md F2: PEFT's first values, taken from a real run of PEFT.
TEST(PeftInitialisation, TheTestsOwnFormIsPeft) {
  std::mt19937 engine(3407);
  const std::vector<float> a = peft_a(engine, 16, 64, 32);
  const std::vector<double> expected{-0.07799631, 0.08041789, -0.07230625, 0.01442982};
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_NEAR(static_cast<double>(a[i]), expected[i], 5e-9) << i;
  }
}

class AdapterFiles : public ::testing::Test {
 protected:
  AdapterFiles() : config_(load(folder_, fixture_config(folder_))) {}

  Config fresh(const std::vector<std::string>& overrides = {}) {
    json c = fixture_config(folder_);
    c["lora"].erase("init_from");
    return load(folder_, c, overrides);
  }
  static AdapterSummary summary(const Session& session) {
    return {.settings = session.model_inputs().adapter,
            .base_folder = session.model_inputs().folder,
            .model_type = "qwen2_vl",
            .classes = {},
            .card = model_card(session.config(), session.model_inputs(), 4, {})};
  }
  static std::vector<std::vector<float>> values(Session& session) {
    std::vector<std::vector<float>> all;
    for (const ops::AdamWTensor& t : session.model().trained()) {
      all.push_back(values_of(session.backend(), t.value));
    }
    return all;
  }
  TempFolder folder_;
  Config config_;
};

TEST_F(AdapterFiles, AFreshAdapterIsPeftsForTheSeed) {
  const Config config = fresh({"train.seed=42"});
  Session session(config, Session::Purpose::train);
  const std::vector<std::string> order{"model.visual.blocks.0.attn.qkv",
                                       "model.visual.blocks.0.attn.proj",
                                       "model.visual.blocks.0.mlp.fc1",
                                       "model.visual.blocks.0.mlp.fc2",
                                       "model.visual.blocks.1.attn.qkv",
                                       "model.visual.blocks.1.attn.proj",
                                       "model.visual.blocks.1.mlp.fc1",
                                       "model.visual.blocks.1.mlp.fc2",
                                       "model.language_model.layers.0.self_attn.q_proj",
                                       "model.language_model.layers.0.self_attn.k_proj",
                                       "model.language_model.layers.0.self_attn.v_proj",
                                       "model.language_model.layers.0.self_attn.o_proj",
                                       "model.language_model.layers.0.mlp.gate_proj",
                                       "model.language_model.layers.0.mlp.up_proj",
                                       "model.language_model.layers.0.mlp.down_proj"};
  std::mt19937 engine(42);
  const auto modules = session.model().modules();
  ASSERT_EQ(modules.size(), 2u * 4 + 2u * 7);
  for (std::size_t i = 0; i < modules.size(); ++i) {
    const nn::LoraModule& m = *modules[i];
    if (i < order.size()) {
      EXPECT_EQ(m.name, order[i]);
    }
    EXPECT_EQ(values_of(session.backend(), m.a.value), peft_a(engine, m.r, m.in, m.out)) << m.name;
    for (const float b : values_of(session.backend(), m.b.value)) ASSERT_EQ(b, 0);
  }
}

TEST_F(AdapterFiles, SavedAndLoadedIsTheSame) {
  Session session(config_, Session::Purpose::train);
  const Gradients g = gradients_of(session);
  update(session.backend(), session.model(), g.result.grad_norm, {.learning_rate = 1e-2});
  const fs::path out = folder_.path() / "adapter";
  EXPECT_TRUE(save_adapter(session.backend(), session.model(), out, summary(session)).empty());
  const Config again = fresh({"lora.init_from=" + out.string()});
  Session other(again, Session::Purpose::train);
  EXPECT_EQ(values(other), values(session));
  EXPECT_EQ(bytes_of_file(fixture() / "checkpoint/tokenizer.json"),
            bytes_of_file(out / "tokenizer.json"));
  const json settings = json::parse(bytes_of_file(out / "adapter_config.json"));
  EXPECT_EQ(settings.at("r"), 16);
  EXPECT_EQ(settings.at("lora_alpha"), 16);
  EXPECT_EQ(settings.at("peft_type"), "LORA");
}

TEST_F(AdapterFiles, ModulesWithZeroBAreListed) {
  const Config config = fresh();
  Session session(config, Session::Purpose::train);
  const fs::path out = folder_.path() / "adapter";
  EXPECT_EQ(save_adapter(session.backend(), session.model(), out, summary(session)).size(), 22u);
  const auto& first = session.model().modules()[3];
  session.backend().fill(first->b.value, 0.5);
  const auto zero = save_adapter(session.backend(), session.model(), out, summary(session));
  EXPECT_EQ(zero.size(), 21u);
  EXPECT_EQ(std::count(zero.begin(), zero.end(), first->name), 0);
}

TEST_F(AdapterFiles, AnAdapterOfAnotherModelIsRefused) {
  Session session(config_, Session::Purpose::train);
  const io::PeftAdapter stored(fixture() / "adapter", io::name_style_of("qwen2_vl"));
  EXPECT_NO_THROW(load_adapter(session.backend(), stored, session.model()));

  // Fewer modules in the model than in the files.
  const Config fewer = fresh({"lora.vision=false"});
  Session language(fewer, Session::Purpose::train);
  expect_user_error(ExitCode::model, {"adapter", "model.visual.blocks.0", "another model"},
                    [&] { load_adapter(language.backend(), stored, language.model()); });
  // Another rank.
  const Config narrow = fresh({"lora.r=8"});
  Session eight(narrow, Session::Purpose::train);
  expect_user_error(ExitCode::model, {"lora_A", "another model"},
                    [&] { load_adapter(eight.backend(), stored, eight.model()); });
  // Fewer modules in the files than in the model.
  const fs::path out = folder_.path() / "adapter";
  save_adapter(language.backend(), language.model(), out, summary(language));
  const io::PeftAdapter partial(out, io::name_style_of("qwen2_vl"));
  expect_user_error(ExitCode::model, {"model.visual.blocks.0"},
                    [&] { load_adapter(session.backend(), partial, session.model()); });
}

TEST_F(AdapterFiles, TheEffectOnLogitsIsMeasuredAndUndone) {
  Session session(config_, Session::Purpose::train);
  const MicroBatch batch = batches_of(session, session.steps().size() - 1).front();
  const auto before = values(session);
  EXPECT_GT(effect_on_logits(session.backend(), session.arenas(), session.model(), batch), 1e-3);
  EXPECT_EQ(values(session), before);
  session.model().initialize_adapters(session.backend(), 5);
  EXPECT_EQ(effect_on_logits(session.backend(), session.arenas(), session.model(), batch), 0);
}

TEST_F(AdapterFiles, TheLinearsChosenAreTheConfigurations) {
  const auto names = [&](const std::vector<std::string>& overrides) {
    const Config config = fresh(overrides);
    const Session session(config, Session::Purpose::train);
    std::vector<std::string> out;
    for (const auto& m : const_cast<Session&>(session).model().modules()) out.push_back(m->name);
    return out;
  };
  EXPECT_EQ(names({"lora.vision=false"}).size(), 14u);
  EXPECT_EQ(names({"lora.language=false"}).size(), 8u);
  EXPECT_EQ(names({"lora.attention=false"}).size(), 2u * 2 + 2u * 3);
  EXPECT_EQ(names({"lora.mlp=false"}).size(), 2u * 2 + 2u * 4);
  EXPECT_EQ(names({R"(lora.targets=".*layers\\.1\\..*q_proj")"}),
            std::vector<std::string>{"model.language_model.layers.1.self_attn.q_proj"});
  // The whole name must match, and the merger and head may be asked for by name.
  expect_user_error(ExitCode::config, {"lora.targets"}, [&] { names({"lora.targets=q_proj"}); });
  expect_user_error(ExitCode::config, {"lora.targets", "(("}, [&] { names({"lora.targets=(("}); });
}

TEST_F(AdapterFiles, TheCardTellsRecipeDataScoresAndLimits) {
  const Session session(config_, Session::Purpose::train);
  Evaluation e;
  e.loss = 1.25;
  e.token_accuracy = 0.5;
  e.yes_no_samples = 8;
  e.yes_no_accuracy = 0.75;
  const io::ModelCard card = model_card(config_, session.model_inputs(), 17, e);
  const std::string text = io::model_card_text(card, session.model_inputs().adapter);
  for (const char* part : {"r 16, alpha 16", "8-bit AdamW", "0.002", "2 samples x 2 micro-batches",
                           "17", "f32", "3407", "jsonl (dataset.jsonl)", "1.2500", "0.5000",
                           "0.7500", "n = 8", "library_name: peft"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " in\n" << text;
  }
  EXPECT_NE(text.find(io::medical_disclaimer()), std::string::npos);
  const std::string without = io::model_card_text(
      model_card(config_, session.model_inputs(), 17, {}), session.model_inputs().adapter);
  EXPECT_NE(without.find("not reported"), std::string::npos);
  EXPECT_EQ(without.find("yes/no"), std::string::npos);
}

}  // namespace
}  // namespace medvqa::train
