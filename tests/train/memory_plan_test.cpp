#include "medvqa/train/memory_plan.h"

#include <gtest/gtest.h>

#include "medvqa/train/adapter_files.h"
#include "medvqa/train/evaluate.h"
#include "medvqa/train/random_checkpoint.h"
#include "tests/train/train_test_support.h"

namespace medvqa::train {
namespace {

void expect_equal(const ArenaSizes& real, const ArenaSizes& planned, const std::string& what) {
  EXPECT_EQ(real.weights, planned.weights) << what;
  EXPECT_EQ(real.adapters, planned.adapters) << what;
  EXPECT_EQ(real.step, planned.step) << what;
  EXPECT_EQ(real.block, planned.block) << what;
  EXPECT_EQ(real.scratch, planned.scratch) << what;
}

// Does all a run does, and compares every arena with the plan, to the byte.
void expect_plan_met(const Config& config, const std::string& what) {
  Session session(config, Session::Purpose::train);
  std::vector<MicroBatch> last;
  for (std::size_t s = 0; s < session.steps().size(); ++s) {
    last = batches_of(session, s);
    const StepResult r =
        accumulate_gradients(session.backend(), session.arenas(), session.model(), last,
                             session.pass_options(static_cast<std::int64_t>(s)));
    update(session.backend(), session.model(), r.grad_norm, {.learning_rate = 1e-4});
  }
  if (!session.data().validation.examples.empty()) {
    evaluate(session.backend(), session.arenas(), session.model(), session.data(),
             config.train.batch_size);
  }
  effect_on_logits(session.backend(), session.arenas(), session.model(), last.front());
  expect_equal(session.arenas().peaks(), session.memory().sizes, what);
  EXPECT_GT(session.memory().sizes.total(), 0u);
}

class Plan : public ::testing::Test {
 protected:
  TempFolder folder_;
};

TEST_F(Plan, IsTheRealPeakOfEveryArena) {
  json c = fixture_config(folder_);
  c["data"]["validation"] = validation_like_train();
  for (const char* policy : {"none", "attention_saved", "all"}) {
    for (const char* compute : {"f32", "bf16", "f16"}) {
      const std::vector<std::string> settings{std::string("train.recompute=") + policy,
                                              std::string("model.compute=") + compute};
      expect_plan_met(load(folder_, c, settings), settings[0] + " " + settings[1]);
    }
  }
  for (const char* setting : {"train.optimizer=adamw", "lora.dropout=0.2", "data.packing=false",
                              "train.batch_size=6", "data.validation=null"}) {
    expect_plan_met(load(folder_, c, {setting}), setting);
  }
}

TEST_F(Plan, HoldsForA16BitModelAndOneQuantisedOnLoad) {
  write_random_checkpoint({preset_config("tiny-qwen2-vl"), folder_.path() / "model", 3, false, {}});
  json c = fixture_config(folder_);
  c["model"]["path"] = (folder_.path() / "model").string();
  c["lora"].erase("init_from");
  for (const char* setting : {"model.quantization=auto", "model.quantization=nf4"}) {
    expect_plan_met(load(folder_, c, {setting, "train.max_steps=1", "data.image.max_pixels=12544"}),
                    setting);
  }
  const Config plain = load(folder_, c, {"model.quantization=nf4", "model.double_quant=false"});
  const Config nested = load(folder_, c, {"model.quantization=nf4"});
  const ModelInputs a = open_model(plain, true), b = open_model(nested, true);
  const auto weights = [](const ModelInputs& m) {
    return plan_memory({}, m, autograd::Recompute::all, {}).sizes.weights;
  };
  EXPECT_GT(weights(a), weights(b));
}

// Keeping more takes more memory; the policy chosen is the first that fits.
TEST_F(Plan, TheFirstPolicyThatFitsIsTaken) {
  using autograd::Recompute;
  const Config config = load(folder_, fixture_config(folder_));
  Session session(config, Session::Purpose::train);
  PlannedWork work;
  work.train = batches_of(session, 0);
  const ops::DeviceTraits& device = session.backend().traits();
  const auto need = [&](Recompute r) {
    return plan_memory(device, session.model_inputs(), r, work).sizes.total();
  };
  const auto choice = [&](std::size_t capacity, std::optional<Recompute> asked = {}) {
    return choose_policy(device, session.model_inputs(), asked, capacity, work).recompute;
  };
  ASSERT_LT(need(Recompute::all), need(Recompute::attention_saved));
  ASSERT_LT(need(Recompute::attention_saved), need(Recompute::none));
  EXPECT_EQ(choice(need(Recompute::none)), Recompute::none);
  EXPECT_EQ(choice(need(Recompute::none) - 1), Recompute::attention_saved);
  EXPECT_EQ(choice(need(Recompute::attention_saved)), Recompute::attention_saved);
  EXPECT_EQ(choice(need(Recompute::attention_saved) - 1), Recompute::all);
  EXPECT_EQ(choice(0), Recompute::all);
  EXPECT_EQ(choice(0, Recompute::none), Recompute::none);
}

TEST_F(Plan, LeavesOutWhatALargerBatchCovers) {
  const auto batch = [](std::int32_t tokens, std::int32_t labels, std::int64_t patches) {
    MicroBatch b;
    b.input.ids.assign(static_cast<std::size_t>(tokens), 1);
    b.input.cu_seqlens = {0, tokens};
    b.logit_rows.assign(static_cast<std::size_t>(labels), 0);
    b.input.patch_rows = patches;
    return b;
  };
  const auto kept = largest({batch(5, 1, 4), batch(9, 2, 4), batch(9, 2, 4), batch(3, 7, 0)});
  ASSERT_EQ(kept.size(), 2u);
  EXPECT_EQ(kept[0].input.tokens(), 9);
  EXPECT_EQ(kept[1].label_count(), 7);
}

TEST_F(Plan, AvailableMemoryIsPlausible) {
  EXPECT_GT(available_memory(), std::size_t{1} << 20);
  EXPECT_LT(available_memory(), std::size_t{1} << 50);
}

}  // namespace
}  // namespace medvqa::train
