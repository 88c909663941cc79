// What the tests of whole training steps on a CUDA device, or the emulated one, share.
#pragma once

#include <gtest/gtest.h>

#include "medvqa/ops/scratch.h"
#include "medvqa/train/backend_factory.h"
#include "medvqa/train/random_checkpoint.h"
#include "tests/train/class_test_support.h"

namespace medvqa::train {

// Two samples, one micro-batch; small pictures, because an emulated thread is slow.
inline json vision_config(const TempFolder& folder, const std::string& preset, bool nf4) {
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

class DeviceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (available_devices().size() > 1) return;
    ASSERT_EQ(std::getenv("MEDVQA_REQUIRE_BACKEND"), nullptr) << "there is no CUDA device here";
    GTEST_SKIP() << "there is no CUDA device here";
  }

  // The 16-bit type the device multiplies.
  static std::string narrow_type(const std::string& device) {
    return ops::has_bf16(make_backend(device)->traits()) ? "bf16" : "f16";
  }
  static std::vector<std::vector<float>> adapters_of(Session& session) {
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

  TempFolder folder_;
};

}  // namespace medvqa::train
