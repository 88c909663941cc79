// A complete training step of each tiny model with the CUDA kernels, on a device or emulated,
// against the CPU: from the samples' bytes to the updated adapter.
#include <gtest/gtest.h>

#include <cmath>

#include "medvqa/train/backend_factory.h"
#include "medvqa/train/random_checkpoint.h"
#include "tests/train/class_test_support.h"

namespace medvqa::train {
namespace {

// Two samples, one micro-batch; small pictures, because an emulated thread is slow.
json vision_config(const TempFolder& folder, const std::string& preset, bool nf4) {
  const fs::path model = folder.path() / preset;
  write_random_checkpoint({preset_config(preset), model, 3, nf4, {}});
  json c = fixture_config(folder);
  c["lora"] = {{"r", 8}, {"alpha", 16}};
  c["model"]["path"] = model.string();
  c["data"]["image"]["max_pixels"] = 3136;
  c["train"]["gradient_accumulation"] = 1;
  c["train"]["max_steps"] = 1;
  return c;
}

json text_config(const TempFolder& folder) {
  json c = vision_config(folder, "tiny-llama", true);
  const json row{{"question", "Is there an effusion?"}, {"answer", "no"}};
  const std::string rows = row.dump() + "\n" + row.dump() + "\n";
  c["task"] = "text";
  c["data"] = {
      {"train",
       json::array({{{"format", "jsonl"}, {"path", folder.write("t.jsonl", rows).string()}}})},
      {"validation", nullptr},
      {"prompt", "{question}"}};
  return c;
}

class TrainingStep : public ::testing::Test {
 protected:
  void SetUp() override {
    if (available_devices().size() > 1) return;
    ASSERT_EQ(std::getenv("MEDVQA_REQUIRE_BACKEND"), nullptr) << "there is no CUDA device here";
    GTEST_SKIP() << "there is no CUDA device here";
  }

  static std::vector<std::vector<float>> values(Session& session) {
    std::vector<std::vector<float>> v;
    for (const auto& t : session.model().trained()) {
      v.push_back(values_of(session.backend(), t.value));
    }
    return v;
  }
  static void update_once(Session& session, double norm) {
    update(session.backend(), session.model(), norm,
           {.learning_rate = 2e-3, .weight_decay = 0.01, .max_grad_norm = 1, .step = 1});
  }

  Config on(const nlohmann::ordered_json& config, const char* device, const std::string& compute) {
    return load(
        folder_, config,
        {std::string("device=") + device, "model.compute=" + compute, "train.recompute=all"});
  }

  Gradients on_cpu(const nlohmann::ordered_json& config, const std::string& compute) {
    const Config c = on(config, "cpu", compute);
    Session session(c, Session::Purpose::train);
    return gradients_of(session);
  }

  // The device's gradients, and that its update of them is the CPU's.
  Gradients on_device(const nlohmann::ordered_json& config, const std::string& compute) {
    const Config c = on(config, "cuda", compute), cpu_config = on(config, "cpu", compute);
    Session session(c, Session::Purpose::train), cpu(cpu_config, Session::Purpose::train);
    EXPECT_NE(session.backend().traits().name, "cpu");
    const Gradients g = gradients_of(session);
    EXPECT_EQ(values(session), values(cpu)) << "the adapters begin differently";
    const std::span<const Tensor> gradients = cpu.model().gradients();
    for (std::size_t i = 0; i < gradients.size(); ++i) {
      cpu.backend().upload(g.of[i].data(), gradients[i].bytes(), gradients[i]);
    }
    update_once(session, g.result.grad_norm);
    update_once(cpu, g.result.grad_norm);
    const auto updated = values(session), expected = values(cpu);
    for (std::size_t i = 0; i < updated.size(); ++i) {
      EXPECT_LE(relative_difference(updated[i], expected[i]), kLossTolerance) << "adapter " << i;
    }
    return g;
  }

  static double distance(const Gradients& a, const Gradients& b) {
    std::vector<float> all_a, all_b;
    for (std::size_t i = 0; i < a.of.size(); ++i) {
      all_a.insert(all_a.end(), a.of[i].begin(), a.of[i].end());
      all_b.insert(all_b.end(), b.of[i].begin(), b.of[i].end());
    }
    return relative_difference(all_a, all_b);
  }

  // f32 within what two orders of summation differ by; 16 bits no farther from f32 than twice what
  // the CPU's are.
  void expect_agreement(const nlohmann::ordered_json& config, const std::string& narrow) {
    const Gradients exact = on_cpu(config, "f32");
    ASSERT_GT(exact.result.grad_norm, 0);
    expect_close(on_device(config, "f32"), exact);
    const Gradients device = on_device(config, narrow), cpu = on_cpu(config, narrow);
    EXPECT_LE(distance(device, exact), 2 * distance(cpu, exact)) << narrow;
    EXPECT_GT(distance(device, exact), 0) << narrow << " is f32";
    const double loss = exact.result.loss;
    EXPECT_LE(std::abs(device.result.loss - loss),
              2 * std::abs(cpu.result.loss - loss) + roundoff_of(narrow) * loss);
  }
  // Half a unit in the last place at one: where the CPU happens to meet the loss better than its
  // type can tell.
  static double roundoff_of(const std::string& type) { return type == "bf16" ? 0x1p-9 : 0x1p-12; }

  TempFolder folder_;
};

TEST_F(TrainingStep, Qwen2Vl) {
  expect_agreement(vision_config(folder_, "tiny-qwen2-vl", true), "bf16");
}

TEST_F(TrainingStep, Qwen2Point5Vl) {
  expect_agreement(vision_config(folder_, "tiny-qwen2-5-vl", false), "f16");
}

TEST_F(TrainingStep, Llama32Vision) {
  expect_agreement(vision_config(folder_, "tiny-mllama", true), "bf16");
}

TEST_F(TrainingStep, LlamaText) {
  expect_agreement(text_config(folder_), "f16");
}

// Forward passes of up to 64 rows multiply 4-bit weights without storing them.
TEST_F(TrainingStep, FewRowsInInference) {
  json c = text_config(folder_);
  c["train"]["batch_size"] = 1;
  const auto logits = [&](const char* device, const char* compute) {
    const Config config = on(c, device, compute);
    const auto backend = make_backend(device);
    const ModelInputs model = open_model(config, true, backend->traits());
    const DataInputs data = open_data(config, model);
    PlannedWork work;
    work.logits = {dry_micro_batch(*data.processor, data.train, std::vector<std::int64_t>{0})};
    EXPECT_LE(work.logits.front().input.tokens(), 64);
    Arenas arenas(*backend, plan_memory(backend->traits(), model, {}, work).sizes);
    AdaptedModel adapted(*backend, arenas, *model.source, model.config, model.settings);
    adapted.initialize_adapters(*backend, config.train.seed);
    ops::Profile profile;
    backend->use_profile(&profile);
    PassOptions options;
    options.training = false;
    options.want_logits = true;
    const PassResult r = run_pass(*backend, arenas, adapted, work.logits.front(), options);
    EXPECT_EQ(profile.entries().contains("nf4_product"), std::string(device) == "cuda");
    return r.logits;
  };
  const auto exact = logits("cpu", "f32");
  const double cpu = relative_difference(logits("cpu", "bf16"), exact);
  EXPECT_GT(cpu, 0);
  EXPECT_LE(relative_difference(logits("cuda", "bf16"), exact), 2 * cpu);
}

TEST_F(TrainingStep, LlamaClassification) {
  nlohmann::ordered_json c = class_config(folder_);
  c["data"]["validation"] = nullptr;
  c["train"]["gradient_accumulation"] = 1;
  c["train"]["max_steps"] = 1;
  expect_agreement(c, "bf16");
}

}  // namespace
}  // namespace medvqa::train
