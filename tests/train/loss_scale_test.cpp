// GradScaler's state machine; scripts/parity_loss_scale.py runs torch's own beside it.
#include "medvqa/train/loss_scale.h"

#include <gtest/gtest.h>

#include <limits>

namespace medvqa::train {
namespace {

TEST(LossScale, BeginsAsGradScaler) {
  const LossScale scale;
  EXPECT_EQ(scale.value(), 65536.0f);
  EXPECT_EQ(scale.state(), (LossScale::State{.scale = 65536, .finite_steps = 0}));
}

TEST(LossScale, HalvesAtOnceAndDoublesAfterThatManyFiniteStepsInARow) {
  LossScale scale({.growth_interval = 3});
  const std::vector<std::pair<bool, LossScale::State>> expected{
      {true, {65536, 1}},  {true, {65536, 2}},  {true, {131072, 0}}, {true, {131072, 1}},
      {false, {65536, 0}}, {false, {32768, 0}}, {true, {32768, 1}},  {true, {32768, 2}},
      {false, {16384, 0}}, {true, {16384, 1}},  {true, {16384, 2}},  {true, {32768, 0}}};
  for (const auto& step : expected) {
    scale.update(step.first);
    EXPECT_EQ(scale.state(), step.second);
  }
}

TEST(LossScale, TakesTwoThousandFiniteStepsByItself) {
  LossScale scale;
  for (int i = 0; i < 1999; ++i) scale.update(true);
  EXPECT_EQ(scale.value(), 65536.0f);
  scale.update(true);
  EXPECT_EQ(scale.value(), 131072.0f);
}

TEST(LossScale, NeverBecomesInfinite) {
  LossScale scale({.growth_interval = 1});
  scale.restore({.scale = 0x1p127f, .finite_steps = 0});
  scale.update(true);
  EXPECT_EQ(scale.state(), (LossScale::State{.scale = 0x1p127f, .finite_steps = 0}));
}

TEST(LossScale, IsExhaustedBelowOne) {
  LossScale scale;
  for (int i = 0; i < 16; ++i) scale.update(false);
  EXPECT_EQ(scale.value(), 1.0f);
  EXPECT_FALSE(scale.exhausted());
  scale.update(false);
  EXPECT_TRUE(scale.exhausted());
}

TEST(LossScale, GoesOnWhereItWas) {
  LossScale straight({.growth_interval = 5});
  for (int i = 0; i < 4; ++i) straight.update(true);
  LossScale other({.growth_interval = 5});
  other.restore(straight.state());
  straight.update(true);
  other.update(true);
  EXPECT_EQ(other.state(), straight.state());
  EXPECT_EQ(other.value(), 131072.0f);
}

}  // namespace
}  // namespace medvqa::train
