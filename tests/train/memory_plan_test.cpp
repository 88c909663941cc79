#include "medvqa/train/memory_plan.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "medvqa/train/adapter_files.h"
#include "medvqa/train/backend_factory.h"
#include "medvqa/train/evaluate.h"
#include "medvqa/train/policy.h"
#include "medvqa/train/random_checkpoint.h"
#include "tests/train/class_test_support.h"

namespace medvqa::train {
namespace {

void expect_equal(const ArenaSizes& real, const ArenaSizes& planned, const std::string& what) {
  EXPECT_EQ(real.weights, planned.weights) << what;
  EXPECT_EQ(real.adapters, planned.adapters) << what;
  EXPECT_EQ(real.step, planned.step) << what;
  EXPECT_EQ(real.block, planned.block) << what;
  EXPECT_EQ(real.scratch, planned.scratch) << what;
  EXPECT_EQ(real.host, planned.host) << what;
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
             session.evaluation_samples());
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
    expect_plan_met(load(folder_, c, {setting, "train.offload=all", "train.recompute=auto"}),
                    std::string(setting) + " train.offload=all");
  }
}

TEST_F(Plan, HoldsForATrainedHead) {
  for (const char* setting :
       {"model.compute=f32", "model.compute=bf16", "model.compute=f16", "data.packing=false",
        "train.recompute=all", "train.optimizer=adamw", "data.validation=null"}) {
    expect_plan_met(load(folder_, class_config(folder_), {setting}), setting);
  }
}

TEST_F(Plan, HoldsForA16BitModelAndOneQuantisedOnLoad) {
  json c = fixture_config(folder_);
  c["lora"].erase("init_from");
  for (const char* preset : {"tiny-qwen2-5-vl", "tiny-qwen2-vl"}) {
    write_random_checkpoint({preset_config(preset), folder_.path() / preset, 3, false, {}});
    c["model"]["path"] = (folder_.path() / preset).string();
    for (const char* setting : {"model.quantization=auto", "model.quantization=nf4"}) {
      expect_plan_met(
          load(folder_, c, {setting, "train.max_steps=1", "data.image.max_pixels=12544"}),
          std::string(preset) + " " + setting);
    }
  }
  const Config plain = load(folder_, c, {"model.quantization=nf4", "model.double_quant=false"});
  const Config nested = load(folder_, c, {"model.quantization=nf4"});
  const ModelInputs a = open_model(plain, true), b = open_model(nested, true);
  const auto weights = [](const ModelInputs& m) {
    return plan_memory({}, m, {}, {}).sizes.weights;
  };
  EXPECT_GT(weights(a), weights(b));
}

constexpr MemoryPolicy kPolicies[] = {
    {autograd::Recompute::none, nn::Dequantize::at_load},
    {autograd::Recompute::none, nn::Dequantize::per_use},
    {autograd::Recompute::attention_saved, nn::Dequantize::at_load},
    {autograd::Recompute::attention_saved, nn::Dequantize::per_segment},
    {autograd::Recompute::attention_saved, nn::Dequantize::per_use},
    {autograd::Recompute::all, nn::Dequantize::at_load},
    {autograd::Recompute::all, nn::Dequantize::per_segment},
    {autograd::Recompute::all, nn::Dequantize::per_use}};

// All of them, and with everything on the host that can be there.
std::vector<MemoryPolicy> every_policy() {
  std::vector<MemoryPolicy> all(std::begin(kPolicies), std::end(kPolicies));
  for (MemoryPolicy p : kPolicies) {
    p.embedding = ops::Place::host;
    all.push_back(p);
    if (p.recompute == autograd::Recompute::none) continue;
    p.points = ops::Place::host;
    all.push_back(p);
  }
  return all;
}

// One step's gradients, bit for bit, and every arena's peak to the byte.
TEST_F(Plan, NoPolicyChangesANumber) {
  for (const char* compute : {"f32", "bf16", "f16"}) {
    const std::string setting = std::string("model.compute=") + compute;
    const Config config = load(folder_, fixture_config(folder_), {setting});
    Session session(config, Session::Purpose::train);
    const std::vector<MicroBatch> batches = batches_of(session, 0);
    PlannedWork work;
    work.train = batches;
    std::vector<std::vector<float>> expected;
    for (const MemoryPolicy& policy : every_policy()) {
      ModelInputs inputs = open_model(config, true);
      const MemoryPlan plan = plan_memory(session.backend().traits(), inputs, policy, work);
      const auto backend = make_backend("cpu");
      Arenas arenas(*backend, plan.sizes);
      apply(policy, inputs.settings);
      AdaptedModel model(*backend, arenas, *inputs.source, inputs.config, inputs.settings);
      load_adapter(*backend, *inputs.start, model);
      PassOptions options = session.pass_options(0);
      apply(policy, options);
      accumulate_gradients(*backend, arenas, model, batches, options);
      std::vector<std::vector<float>> gradients;
      for (const Tensor& g : model.gradients()) {
        gradients.emplace_back(static_cast<std::size_t>(g.elements()));
        backend->download(g, gradients.back().data(), g.bytes());
      }
      const std::string what = setting + " " + in_words(policy);
      expect_equal(arenas.peaks(), plan.sizes, what);
      if (expected.empty()) expected = gradients;
      EXPECT_EQ(gradients, expected) << what;
    }
  }
}

// The fastest first: without replays, then with weights that are dequantised less often.
TEST_F(Plan, TheFirstPolicyThatFitsIsTaken) {
  using autograd::Recompute;
  const Config config = load(folder_, fixture_config(folder_));
  Session session(config, Session::Purpose::train);
  PlannedWork work;
  work.train = batches_of(session, 0);
  const ops::DeviceTraits& device = session.backend().traits();
  const auto choice = [&](std::size_t capacity, std::optional<Recompute> asked = {}) {
    const auto all_work = [&](std::int64_t) { return work; };
    const MemoryPlan p = choose_policy(device, session.model_inputs(),
                                       {.recompute = asked, .batch_size = 2}, capacity, all_work)
                             .plan;
    return name_of(p.policy.recompute) + " " + name_of(p.policy.dequantize);
  };
  std::vector<std::size_t> needs;
  for (const MemoryPolicy& p : kPolicies) {
    needs.push_back(plan_memory(device, session.model_inputs(), p, work).sizes.total());
  }
  for (std::size_t i = 0; i < needs.size(); ++i) {
    const auto first = std::find_if(needs.begin(), needs.end(),
                                    [&](std::size_t need) { return need <= needs[i]; });
    const MemoryPolicy& p = kPolicies[first - needs.begin()];
    EXPECT_EQ(choice(needs[i]), name_of(p.recompute) + " " + name_of(p.dequantize));
  }
  EXPECT_EQ(choice(*std::max_element(needs.begin(), needs.end())), "none at_load");
  EXPECT_LT(needs[1], needs[0]);
  EXPECT_LT(needs[4], needs[1]);
  EXPECT_LT(needs[7], needs[4]);
  EXPECT_EQ(choice(0), "all per_use");
  EXPECT_EQ(choice(0, Recompute::none), "none per_use");
}

// What the plan leaves out must fit into what it measures, under every policy.
TEST_F(Plan, NoCoveredBatchNeedsMore) {
  for (const char* preset : {"tiny-qwen2-vl", "tiny-qwen2-5-vl", "tiny-mllama"}) {
    json c = fixture_config(folder_);
    c["lora"].erase("init_from");
    write_random_checkpoint({preset_config(preset), folder_.path() / preset, 3, true, {}});
    c["model"]["path"] = (folder_.path() / preset).string();
    const bool tiles = std::string(preset) == "tiny-mllama";
    c["data"]["image"] = {{"min_pixels", tiles ? json(nullptr) : json(784)}};
    std::vector<MicroBatch> batches;
    for (const char* pixels : {"3136", "6272", "12544", "25088"}) {
      for (const char* size : {"1", "2", "3", "6"}) {
        const Config config =
            load(folder_, c,
                 {std::string("train.batch_size=") + size, "train.max_steps=12",
                  "train.gradient_accumulation=1", std::string("data.image.max_pixels=") + pixels});
        const Session session(config, Session::Purpose::train);
        for (std::size_t s = 0; s < 12; ++s) {
          for (MicroBatch& b : batches_of(session, s)) batches.push_back(std::move(b));
        }
      }
    }
    const ModelInputs model = open_model(load(folder_, c), true);
    for (std::size_t step = 1; step <= 7; ++step) {
      PlannedWork all, measured;
      for (std::size_t i = 0; i < batches.size(); i += step) all.train.push_back(batches[i]);
      measured.train = largest(all.train);
      EXPECT_LT(measured.train.size(), all.train.size());
      for (const MemoryPolicy& p : every_policy()) {
        expect_equal(plan_memory({}, model, p, all).sizes,
                     plan_memory({}, model, p, measured).sizes,
                     std::string(preset) + " " + in_words(p));
      }
    }
  }
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

}  // namespace
}  // namespace medvqa::train
