// Which policy is taken, and what the shipped configurations need on a T4.
#include "medvqa/train/policy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <ctime>

#include "medvqa/models/model.h"
#include "medvqa/train/plan.h"
#include "medvqa/train/random_checkpoint.h"
#include "tests/train/train_test_support.h"

namespace medvqa::train {
namespace {

using autograd::Recompute;
using nn::Dequantize;
using ops::Place;

constexpr std::size_t kGiB = std::size_t{1} << 30;

MemoryPlan candidate(std::size_t bytes, double seconds) {
  MemoryPlan p;
  p.sizes.weights = bytes;
  p.seconds = seconds;
  return p;
}

TEST(BestPolicy, IsTheSmallestWithinTenPercentOfTheFastestThatFits) {
  const std::vector<MemoryPlan> plans{candidate(900, 1.0), candidate(500, 2.0),
                                      candidate(400, 2.19), candidate(100, 2.21),
                                      candidate(400, 2.1)};
  EXPECT_EQ(best_of(plans, 1000), 0u);
  EXPECT_EQ(best_of(plans, 600), 4u);  // as small as another, and faster
  EXPECT_EQ(best_of(plans, 399), 3u);
  EXPECT_EQ(best_of(plans, 99), std::nullopt);
  EXPECT_EQ(best_of({}, 1000), std::nullopt);
}

TEST(PossiblePolicies, OnACpuAreWithoutTheHostUnlessAskedFor) {
  const ops::DeviceTraits cpu{.name = "cpu"};
  const auto usual = possible_policies(cpu, {.batch_size = 4});
  EXPECT_EQ(usual.size(), 8u);
  for (const MemoryPolicy& p : usual) {
    EXPECT_EQ(p.embedding, Place::device);
    EXPECT_EQ(p.points, Place::device);
    EXPECT_EQ(p.samples_per_pass, 4);
  }
  const auto forced = possible_policies(cpu, {.offload = Offload::all, .batch_size = 4});
  EXPECT_EQ(forced.size(), 6u);  // without replays there are no points
  for (const MemoryPolicy& p : forced) {
    EXPECT_EQ(p.embedding, Place::host);
    EXPECT_EQ(p.points, Place::host);
  }
  const auto kept = possible_policies(
      cpu, {.recompute = Recompute::none, .offload = Offload::all, .batch_size = 4});
  ASSERT_EQ(kept.size(), 2u);
  EXPECT_EQ(kept[0].embedding, Place::host);
  EXPECT_EQ(kept[0].points, Place::device);
}

TEST(PossiblePolicies, OnAGpuSplitPassesDownToOneSample) {
  const ops::DeviceTraits gpu{.name = "t4", .own_memory = true};
  std::vector<std::int64_t> passes;
  for (const MemoryPolicy& p : possible_policies(gpu, {.batch_size = 6})) {
    if (std::find(passes.begin(), passes.end(), p.samples_per_pass) == passes.end()) {
      passes.push_back(p.samples_per_pass);
    }
  }
  EXPECT_EQ(passes, (std::vector<std::int64_t>{6, 3, 2, 1}));
  for (const MemoryPolicy& p : possible_policies(gpu, {.offload = Offload::none})) {
    EXPECT_EQ(p.embedding, Place::device);
    EXPECT_EQ(p.points, Place::device);
  }
}

TEST(Passes, AreMicroBatchesInOrder) {
  using Lists = std::vector<std::vector<std::int64_t>>;
  const Lists batches{{1, 2, 3, 4, 5}, {6}};
  EXPECT_EQ(in_passes(batches, 5), batches);
  EXPECT_EQ(in_passes(batches, 2), (Lists{{1, 2}, {3, 4}, {5}, {6}}));
  EXPECT_EQ(in_passes(batches, 1), (Lists{{1}, {2}, {3}, {4}, {5}, {6}}));
}

// What the host cannot spare stays on the device.
TEST(ChoosePolicy, TakesNoMoreOfTheHostThanItHas) {
  const TempFolder folder;
  json c = fixture_config(folder);
  c["train"]["recompute"] = "all";
  const ModelInputs model = open_model(load(folder, c), false);
  const auto work = [&](std::int64_t samples) {
    PlannedWork w;
    w.train.resize(1);
    w.train[0].input = models::largest_input(model.config, 64, 12544, samples);
    w.train[0].logit_rows = {0};
    w.train[0].targets = {1};
    return w;
  };
  const auto chosen = [&](std::size_t host_capacity) {
    const PolicyRequest request{
        .recompute = Recompute::all, .batch_size = 2, .host_capacity = host_capacity};
    return choose_policy({.name = "t4", .own_memory = true}, model, request, kGiB, work).plan;
  };
  const MemoryPlan free = chosen(kGiB);
  EXPECT_GT(free.sizes.host, 0u);
  EXPECT_EQ(chosen(free.sizes.host).sizes.host, free.sizes.host);
  EXPECT_LT(chosen(free.sizes.host - 1).sizes.host, free.sizes.host);
  EXPECT_EQ(chosen(0).sizes.host, 0u);
}

// A resumed run keeps the order of its sums, whatever would be chosen now.
TEST(Policies, AResumedRunKeepsItsPasses) {
  const PolicyRequest request{.batch_size = 4, .samples_per_pass = 2};
  for (const MemoryPolicy& p : possible_policies({.name = "t4", .own_memory = true}, request)) {
    EXPECT_EQ(p.samples_per_pass, 2);
  }
}

class ShippedPlan : public ::testing::Test {
 protected:
  // A shipped configuration with the published config.json of its model and nothing else.
  Plan plan(const std::string& config, const std::string& preset, const std::string& device,
            std::vector<std::string> settings = {}) {
    json model = preset_config(preset);
    model["quantization_config"] = {{"quant_method", "bitsandbytes"},
                                    {"load_in_4bit", true},
                                    {"bnb_4bit_quant_type", "nf4"},
                                    {"bnb_4bit_use_double_quant", true},
                                    {"llm_int8_skip_modules", json::array()}};
    fs::create_directories(folder_.path() / preset);
    folder_.write(preset + "/config.json", model.dump());
    settings.push_back("model.path=" + (folder_.path() / preset).string());
    const fs::path file = fs::path(MEDVQA_SOURCE_DIR) / "configs" / (config + ".json");
    return make_plan(load_config(file, settings, {}), device);
  }
  TempFolder folder_;
};

void expect_small(const Plan& plan, double gib) {
  const double total = static_cast<double>(plan.total()) / static_cast<double>(kGiB);
  EXPECT_LE(total, gib) << in_words(plan.memory.policy);
  EXPECT_GT(total, 0.6 * gib);
  EXPECT_TRUE(plan.fits());
  EXPECT_EQ(plan.memory.policy.embedding, Place::host);
  EXPECT_EQ(plan.memory.policy.points, Place::host);
  EXPECT_GT(plan.memory.sizes.host, 0u);
}

TEST_F(ShippedPlan, Llama32OnAT4TakesUnderNineGib) {
  const std::clock_t began = std::clock();
  const Plan p = plan("llama32_vqarad", "llama32-11b-vision", "t4");
  const double seconds = static_cast<double>(std::clock() - began) / CLOCKS_PER_SEC;
  EXPECT_LT(seconds, 5.0);
  expect_small(p, 9.0);
  EXPECT_EQ(p.memory.parameters.trainable, 67174400);
}

TEST_F(ShippedPlan, Qwen2Vl7BOnAT4TakesUnderSixPointTwoGib) {
  expect_small(plan("qwen2vl7b_medpix", "qwen2-vl-7b", "t4"), 6.2);
}

// The choice is between those that fit, none is slower than a tenth over the fastest, and none
// of these is smaller.
TEST_F(ShippedPlan, TheChoiceIsWhatTheCandidatesSay) {
  for (const char* device : {"t4", "a100-40", "h100", "h200"}) {
    const Plan p = plan("llama32_vqarad", "llama32-11b-vision", device);
    ASSERT_FALSE(p.candidates.empty());
    double fastest = 1e30;
    for (const MemoryPlan& c : p.candidates) {
      EXPECT_GT(c.seconds, 0);
      if (c.sizes.total() <= p.device.capacity) fastest = std::min(fastest, c.seconds);
    }
    EXPECT_LE(p.memory.seconds, 1.1 * fastest * (1 + 1e-12)) << device;
    for (const MemoryPlan& c : p.candidates) {
      if (c.seconds > 1.1 * fastest || c.sizes.total() > p.device.capacity) continue;
      EXPECT_GE(c.sizes.total(), p.memory.sizes.total()) << device;
    }
  }
}

// A large card has no reason to compute anything twice.
TEST_F(ShippedPlan, WhatFitsIsNotRecomputed) {
  const Plan small = plan("qwen2vl7b_medpix", "qwen2-vl-7b", "t4");
  const Plan large = plan("qwen2vl7b_medpix", "qwen2-vl-7b", "h200");
  EXPECT_NE(small.memory.policy.recompute, Recompute::none);
  EXPECT_EQ(large.memory.policy.recompute, Recompute::none);
  EXPECT_LT(large.memory.seconds, small.memory.seconds);
}

TEST_F(ShippedPlan, OffloadingCanBeForcedEitherWay) {
  const Plan none = plan("llama32_vqarad", "llama32-11b-vision", "t4", {"train.offload=none"});
  EXPECT_EQ(none.memory.policy.embedding, Place::device);
  EXPECT_EQ(none.memory.policy.points, Place::device);
  EXPECT_EQ(none.memory.sizes.host, 0u);
  const Plan all = plan("llama32_vqarad", "llama32-11b-vision", "h200", {"train.offload=all"});
  EXPECT_EQ(all.memory.policy.embedding, Place::host);
  EXPECT_EQ(all.memory.policy.points, Place::host);
}

// The head of Qwen2-VL-2B is its embedding table, which stays where the head's product reads it.
TEST_F(ShippedPlan, ATiedEmbeddingStaysOnTheDevice) {
  const Plan p = plan("qwen2vl2b_vqarad", "qwen2-vl-2b", "t4", {"train.offload=all"});
  EXPECT_EQ(p.memory.policy.embedding, Place::device);
  EXPECT_EQ(p.memory.policy.points, Place::host);
}

}  // namespace
}  // namespace medvqa::train
