#include "medvqa/train/schedule.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <numeric>

namespace medvqa::train {
namespace {

TrainConfig with_schedule(Schedule schedule) {
  TrainConfig c;
  c.learning_rate = 2e-4;
  c.warmup_steps = 5;
  c.schedule = schedule;
  return c;
}

// get_linear_schedule_with_warmup(5, 30) of transformers times 2e-4, exact in f64.
TEST(LearningRate, LinearIsTransformers) {
  const std::array<double, 30> expected{0.0,
                                        4e-05,
                                        8e-05,
                                        0.00012,
                                        0.00016,
                                        0.0002,
                                        0.000192,
                                        0.00018400000000000003,
                                        0.00017600000000000002,
                                        0.000168,
                                        0.00016,
                                        0.000152,
                                        0.000144,
                                        0.00013600000000000003,
                                        0.00012800000000000002,
                                        0.00012,
                                        0.00011200000000000001,
                                        0.00010400000000000001,
                                        9.6e-05,
                                        8.800000000000001e-05,
                                        8e-05,
                                        7.2e-05,
                                        6.400000000000001e-05,
                                        5.6000000000000006e-05,
                                        4.8e-05,
                                        4e-05,
                                        3.2000000000000005e-05,
                                        2.4e-05,
                                        1.6000000000000003e-05,
                                        8.000000000000001e-06};
  const TrainConfig c = with_schedule(Schedule::linear);
  for (std::size_t step = 0; step < expected.size(); ++step) {
    EXPECT_EQ(learning_rate(c, static_cast<std::int64_t>(step), 30), expected[step]) << step;
  }
  EXPECT_EQ(learning_rate(c, 30, 30), 0);
  EXPECT_EQ(learning_rate(c, 31, 30), 0);
}

// get_cosine_schedule_with_warmup: half a wave after the warmup.
TEST(LearningRate, CosineIsHalfAWave) {
  const TrainConfig c = with_schedule(Schedule::cosine);
  EXPECT_EQ(learning_rate(c, 0, 30), 0);
  EXPECT_EQ(learning_rate(c, 4, 30), 0.00016);
  EXPECT_EQ(learning_rate(c, 5, 30), 2e-4);
  for (std::int64_t step = 5; step < 30; ++step) {
    const double half_angle = std::numbers::pi * static_cast<double>(step - 5) / 25 / 2;
    EXPECT_NEAR(learning_rate(c, step, 30), 2e-4 * std::pow(std::cos(half_angle), 2), 1e-19);
  }
  EXPECT_NEAR(learning_rate(c, 30, 30), 0, 1e-19);
}

TEST(LearningRate, ConstantStaysAfterTheWarmup) {
  const TrainConfig c = with_schedule(Schedule::constant);
  EXPECT_EQ(learning_rate(c, 2, 30), 8e-05);
  for (const std::int64_t step : {5, 17, 29, 1000}) EXPECT_EQ(learning_rate(c, step, 30), 2e-4);
}

TEST(LearningRate, NoWarmupAndWarmupLongerThanTheRun) {
  for (const Schedule s : {Schedule::linear, Schedule::cosine, Schedule::constant}) {
    TrainConfig c = with_schedule(s);
    c.warmup_steps = 0;
    EXPECT_EQ(learning_rate(c, 0, 10), 2e-4);
    c.warmup_steps = 50;
    EXPECT_DOUBLE_EQ(learning_rate(c, 9, 10), 2e-4 * 9 / 50);
  }
}

using Step = std::vector<std::vector<std::int64_t>>;

std::vector<Step> groups(const std::vector<PlannedStep>& steps) {
  std::vector<Step> out;
  for (const PlannedStep& s : steps) out.push_back(s.micro_batches);
  return out;
}

TrainConfig two_by_two() {
  TrainConfig t;
  t.batch_size = 2;
  t.gradient_accumulation = 2;
  return t;
}

DataConfig in_order() {
  DataConfig d;
  d.shuffle = false;
  return d;
}

TEST(PlanSteps, TheLastMicroBatchAndGroupMayBeSmaller) {
  const auto steps = plan_steps(two_by_two(), in_order(), 7);
  EXPECT_EQ(groups(steps), (std::vector<Step>{{{0, 1}, {2, 3}}, {{4, 5}, {6}}}));
  EXPECT_DOUBLE_EQ(steps[0].epoch, 4.0 / 7);
  EXPECT_DOUBLE_EQ(steps[1].epoch, 1);
  EXPECT_EQ(groups(plan_steps(two_by_two(), in_order(), 5)),
            (std::vector<Step>{{{0, 1}, {2, 3}}, {{4}}}));
  EXPECT_EQ(groups(plan_steps(two_by_two(), in_order(), 1)), (std::vector<Step>{{{0}}}));
  EXPECT_EQ(groups(plan_steps(two_by_two(), in_order(), 8)),
            (std::vector<Step>{{{0, 1}, {2, 3}}, {{4, 5}, {6, 7}}}));
}

TEST(PlanSteps, WithoutPackingEverySampleStandsAlone) {
  DataConfig d = in_order();
  d.packing = false;
  EXPECT_EQ(groups(plan_steps(two_by_two(), d, 6)),
            (std::vector<Step>{{{0}, {1}, {2}, {3}}, {{4}, {5}}}));
}

TEST(PlanSteps, MaxStepsRunsOverEpochsAndCutsThem) {
  TrainConfig t = two_by_two();
  t.epochs = 1;
  t.max_steps = 5;
  const auto steps = plan_steps(t, in_order(), 6);
  ASSERT_EQ(steps.size(), 5u);
  const std::vector<double> epochs{4.0 / 6, 1, 1 + 4.0 / 6, 2, 2 + 4.0 / 6};
  for (std::size_t i = 0; i < 5; ++i) EXPECT_DOUBLE_EQ(steps[i].epoch, epochs[i]) << i;
  t.epochs = 100;
  t.max_steps = 1;
  EXPECT_EQ(plan_steps(t, in_order(), 6).size(), 1u);
}

// torch.randperm(10) with seed 3407, then with 3408: as the Trainer of transformers.
TEST(PlanSteps, TheFirstEpochIsTorchsPermutation) {
  TrainConfig t;
  t.batch_size = 10;
  const auto steps = plan_steps(t, DataConfig{}, 10);
  EXPECT_EQ(groups(steps), (std::vector<Step>{{{9, 1, 5, 7, 3, 2, 8, 6, 4, 0}}}));
  t.seed = 42;
  EXPECT_EQ(groups(plan_steps(t, DataConfig{}, 10)),
            (std::vector<Step>{{{2, 6, 1, 8, 4, 5, 0, 9, 3, 7}}}));
}

TEST(PlanSteps, EveryEpochHasItsOwnOrderOfAllSamples) {
  TrainConfig t = two_by_two();
  t.epochs = 3;
  const DataConfig d;
  const auto steps = plan_steps(t, d, 6);
  ASSERT_EQ(steps.size(), 6u);
  std::vector<std::vector<std::int64_t>> orders(3);
  for (std::size_t s = 0; s < steps.size(); ++s) {
    for (const auto& micro : steps[s].micro_batches) {
      orders[s / 2].insert(orders[s / 2].end(), micro.begin(), micro.end());
    }
  }
  EXPECT_NE(orders[0], orders[1]);
  EXPECT_NE(orders[1], orders[2]);
  std::vector<std::int64_t> all(6);
  std::iota(all.begin(), all.end(), 0);
  for (auto& order : orders) {
    std::sort(order.begin(), order.end());
    EXPECT_EQ(order, all);
  }
}

}  // namespace
}  // namespace medvqa::train
