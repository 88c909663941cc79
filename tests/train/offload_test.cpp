// Host memory for the embedding table and the recompute points changes no number, in any family.
#include <gtest/gtest.h>

#include "medvqa/train/random_checkpoint.h"
#include "tests/train/class_test_support.h"

namespace medvqa::train {
namespace {

// Gradients of three steps with their updates, the adapters after them, and the memory.
struct Trained {
  std::vector<Gradients> steps;
  std::vector<std::vector<float>> adapters;
  ArenaSizes planned, real;
  MemoryPolicy policy;
};

Trained train(const Config& config) {
  Session session(config, Session::Purpose::train);
  Trained t;
  for (std::size_t s = 0; s < 3; ++s) {
    t.steps.push_back(gradients_of(session, s));
    update(session.backend(), session.model(), t.steps.back().result.grad_norm,
           {.learning_rate = 1e-2, .max_grad_norm = 1, .step = static_cast<std::int64_t>(s) + 1});
  }
  for (const ops::AdamWTensor& a : session.model().trained()) {
    t.adapters.push_back(values_of(session.backend(), a.value));
  }
  t.planned = session.memory().sizes;
  t.real = session.arenas().peaks();
  t.policy = session.memory().policy;
  return t;
}

class Offload : public ::testing::Test {
 protected:
  // The fixture's pictures and questions, or texts, on a small random model of that family.
  nlohmann::ordered_json config_of(const std::string& preset) {
    if (preset == "tiny-llama") return class_config(folder_);
    const fs::path model = folder_.path() / preset;
    if (!fs::exists(model)) write_random_checkpoint({preset_config(preset), model, 3, true, {}});
    json c = fixture_config(folder_);
    c["model"]["path"] = model.string();
    c["lora"].erase("init_from");
    c["data"]["image"] = {{"max_pixels", 12544}};
    return c;
  }

  void expect_no_difference(const std::string& preset, const std::string& compute) {
    const std::string what = preset + " " + compute;
    for (const char* recompute : {"all", "attention_saved"}) {
      const auto with = [&](const char* offload) {
        return train(load(folder_, config_of(preset),
                          {"model.compute=" + compute, std::string("train.offload=") + offload,
                           std::string("train.recompute=") + recompute, "lora.dropout=0.1"}));
      };
      const Trained device = with("none"), host = with("all");
      EXPECT_EQ(host.policy.points, ops::Place::host) << what;
      ASSERT_EQ(host.steps.size(), device.steps.size());
      for (std::size_t s = 0; s < host.steps.size(); ++s) {
        EXPECT_GT(device.steps[s].result.grad_norm, 0) << what;
        EXPECT_TRUE(host.steps[s] == device.steps[s]) << what << " step " << s;
      }
      EXPECT_EQ(host.adapters, device.adapters) << what;
      EXPECT_GT(host.real.host, 0u);
      // The two blocks of tiny-llama have no more points than the device holds at a time.
      if (preset != "tiny-llama") {
        EXPECT_LT(host.real.step, device.real.step) << what;
      }
      EXPECT_LE(host.real.weights, device.real.weights) << what;
      EXPECT_EQ(host.planned.host, host.real.host) << what;
      EXPECT_EQ(host.planned.step, host.real.step) << what;
      EXPECT_EQ(host.planned.weights, host.real.weights) << what;
      EXPECT_EQ(host.planned.block, host.real.block) << what;
    }
  }
  TempFolder folder_;
};

TEST_F(Offload, ChangesNoBitOfQwen2Vl) {
  for (const char* compute : {"f32", "bf16", "f16"}) expect_no_difference("tiny-qwen2-vl", compute);
}
TEST_F(Offload, ChangesNoBitOfQwen25Vl) {
  expect_no_difference("tiny-qwen2-5-vl", "bf16");
}
TEST_F(Offload, ChangesNoBitOfMllama) {
  for (const char* compute : {"f32", "f16"}) expect_no_difference("tiny-mllama", compute);
}
TEST_F(Offload, ChangesNoBitOfLlama) {
  for (const char* compute : {"f32", "bf16"}) expect_no_difference("tiny-llama", compute);
}

// The table's bytes leave the device, and the rows that go there are the same.
TEST_F(Offload, AnEmbeddingOnTheHostTakesNoDeviceMemory) {
  const nlohmann::ordered_json c = config_of("tiny-mllama");
  const ModelInputs model = open_model(load(folder_, c, {"model.compute=bf16"}), true);
  const auto weights = [&](ops::Place place) {
    return plan_memory({}, model, {.embedding = place}, {}).sizes.weights;
  };
  const auto& text = model.config.at("text_config");
  const std::size_t table = (text.at("vocab_size").get<std::size_t>() + 8) *
                            text.at("hidden_size").get<std::size_t>() * 2;
  EXPECT_EQ(weights(ops::Place::device) - weights(ops::Place::host), table);
}

// Passes of one sample are what data.packing=false runs.
TEST_F(Offload, PassesOfOneSampleEqualARunWithoutPacking) {
  const nlohmann::ordered_json c = config_of("tiny-qwen2-vl");
  const Config packed = load(folder_, c, {"lora.dropout=0.1"});
  Session whole(packed, Session::Purpose::train);
  const auto split = in_passes(whole.steps()[0].micro_batches, 1);
  const Config unpacked = load(folder_, c, {"lora.dropout=0.1", "data.packing=false"});
  Session single(unpacked, Session::Purpose::train);
  EXPECT_EQ(split, single.steps()[0].micro_batches);
  EXPECT_NE(split, whole.steps()[0].micro_batches);
}

}  // namespace
}  // namespace medvqa::train
