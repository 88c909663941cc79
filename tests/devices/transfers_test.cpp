// Values that leave device memory and come back change no bit of a step. The emulator makes their
// copies as late as it may: what was not awaited, or was written too early, is seen.
#include <gtest/gtest.h>

#include "tests/devices/device_test_support.h"

namespace medvqa::train {
namespace {

class Transfers : public DeviceTest {
 protected:
  // A step of one sample, with dropout.
  Gradients train(const json& config, const std::string& offload, const std::string& recompute) {
    const Config settings = load(folder_, config,
                                 {"device=cuda", "model.compute=auto", "lora.dropout=0.1",
                                  "train.offload=" + offload, "train.recompute=" + recompute});
    Session session(settings, Session::Purpose::train);
    EXPECT_EQ(session.memory().policy.points,
              offload == "all" ? ops::Place::host : ops::Place::device);
    return gradients_of(session);
  }

  void expect_no_difference(const std::string& preset) {
    json c = vision_config(folder_, preset, true);
    c["train"]["batch_size"] = 1;
    const Gradients device = train(c, "none", "all");
    EXPECT_GT(device.result.grad_norm, 0);
    for (const char* recompute : {"all", "attention_saved"}) {
      EXPECT_TRUE(train(c, "all", recompute) == device) << recompute;
    }
  }
};

TEST_F(Transfers, ChangeNoBitOfQwen2Vl) {
  expect_no_difference("tiny-qwen2-vl");
}

TEST_F(Transfers, ChangeNoBitOfMllama) {
  expect_no_difference("tiny-mllama");
}

}  // namespace
}  // namespace medvqa::train
