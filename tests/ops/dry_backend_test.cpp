// The estimate of time: operations and transfers beside them.
#include "medvqa/ops/dry_backend.h"

#include <gtest/gtest.h>

namespace medvqa::ops {
namespace {

constexpr std::int64_t kSide = 1000;

struct Timed {
  Arena scratch{"scratch"};
  DryBackend backend{DeviceTraits{.name = "t4"}};
  Tensor matrix{nullptr, DType::f16, {kSide, kSide}};
  Timed() { backend.use_scratch(scratch); }
  void product() { backend.gemm({.a = matrix, .b = matrix, .c = matrix}); }
};
constexpr double kProduct = 2e9 / 24e12;  // seconds
constexpr double kCopy = 2e6 / 10e9;

TEST(DeviceRates, AreFoundByTheDriversName) {
  for (const char* name : {"t4", "Tesla T4"}) EXPECT_EQ(rates_of(name).operations, 24e12) << name;
  EXPECT_EQ(rates_of("NVIDIA H100 80GB HBM3").operations, 600e12);
  EXPECT_EQ(rates_of("NVIDIA H200").memory, 4000e9);
  EXPECT_EQ(rates_of("a100-40").link, 20e9);
  for (const char* name : {"NVIDIA T400", "RTX A4000", ""}) {
    EXPECT_EQ(rates_of(name).operations, rates_of("a100").operations) << name;
  }
}

TEST(DryBackend, TransfersHideBehindOperations) {
  Timed t;
  t.product();
  EXPECT_DOUBLE_EQ(t.backend.seconds(), kProduct);
  const Transfer out = t.backend.offload(t.matrix, t.matrix);
  EXPECT_DOUBLE_EQ(t.backend.seconds(), kProduct) << "offload() waited";
  for (int i = 0; i < 4; ++i) t.product();
  t.backend.await(out);
  EXPECT_DOUBLE_EQ(t.backend.seconds(), 5 * kProduct) << "hidden: " << kCopy;
}

TEST(DryBackend, WhatDoesNotHideIsWaitedFor) {
  Timed t;
  t.product();
  const Transfer out = t.backend.offload(t.matrix, t.matrix);
  const Transfer in = t.backend.fetch(t.matrix, t.matrix);
  t.product();
  t.backend.await(out);
  EXPECT_DOUBLE_EQ(t.backend.seconds(), kProduct + kCopy);
  t.backend.await(in);  // one after the other
  EXPECT_DOUBLE_EQ(t.backend.seconds(), kProduct + 2 * kCopy);
  t.backend.await(0);
  EXPECT_DOUBLE_EQ(t.backend.seconds(), kProduct + 2 * kCopy);
}

}  // namespace
}  // namespace medvqa::ops
