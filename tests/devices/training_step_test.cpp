// A complete training step of each tiny model with the CUDA kernels, on a device or emulated,
// against the CPU: from the samples' bytes to the updated adapter.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/devices/device_test_support.h"

namespace medvqa::train {
namespace {

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

class TrainingStep : public DeviceTest {
 protected:
  Config on(const nlohmann::ordered_json& config, const std::string& device,
            const std::string& compute) {
    return load(folder_, config,
                {"device=" + device, "model.compute=" + compute, "train.recompute=all"});
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
    EXPECT_EQ(adapters_of(session), adapters_of(cpu)) << "the adapters begin differently";
    const std::span<const Tensor> gradients = cpu.model().gradients();
    for (std::size_t i = 0; i < gradients.size(); ++i) {
      cpu.backend().upload(g.of[i].data(), gradients[i].bytes(), gradients[i]);
    }
    update_once(session, g.result.grad_norm);
    update_once(cpu, g.result.grad_norm);
    const auto updated = adapters_of(session), expected = adapters_of(cpu);
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
};

TEST_F(TrainingStep, Qwen2Vl) {
  expect_agreement(vision_config(folder_, "tiny-qwen2-vl", true), narrow_type("cuda"));
}

TEST_F(TrainingStep, Qwen2Point5Vl) {
  expect_agreement(vision_config(folder_, "tiny-qwen2-5-vl", false), "f16");
}

TEST_F(TrainingStep, Llama32Vision) {
  expect_agreement(vision_config(folder_, "tiny-mllama", true), narrow_type("cuda"));
}

TEST_F(TrainingStep, LlamaText) {
  expect_agreement(text_config(folder_), "f16");
}

// Forward passes of up to 64 rows multiply 4-bit weights without storing them.
TEST_F(TrainingStep, FewRowsInInference) {
  json c = text_config(folder_);
  c["train"]["batch_size"] = 1;
  const auto logits = [&](const std::string& device, const std::string& compute) {
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
    EXPECT_EQ(profile.entries().contains("nf4_product"), device != "cpu") << device;
    return r.logits;
  };
  const auto exact = logits("cpu", "f32");
  const std::vector<std::string> devices = available_devices();
  for (auto device = devices.begin() + 1; device != devices.end(); ++device) {
    const std::string narrow = narrow_type(*device);
    const double cpu = relative_difference(logits("cpu", narrow), exact);
    EXPECT_GT(cpu, 0);
    EXPECT_LE(relative_difference(logits(*device, narrow), exact), 2 * cpu) << *device;
  }
}

TEST_F(TrainingStep, LlamaClassification) {
  nlohmann::ordered_json c = class_config(folder_);
  c["data"]["validation"] = nullptr;
  c["train"]["gradient_accumulation"] = 1;
  c["train"]["max_steps"] = 1;
  expect_agreement(c, narrow_type("cuda"));
}

}  // namespace
}  // namespace medvqa::train
