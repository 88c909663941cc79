// Planted faults, as in planted_faults_test.cpp: whole blocks of memory, stacks, foreign memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <memory>

#include "machine.h"
#include "tests/emulation/device_array.h"

namespace medvqa::emulation {
namespace {

using cuda::launch;
using ::testing::AllOf;
using ::testing::HasSubstr;

// Copies that a compiler turns into calls, or that are calls: each goes one element too far.
struct Row {
  float values[24];
};
__global__ void copy_struct(const Row* x, Row* y) {
  y[threadIdx.x] = x[threadIdx.x + 1];
}
__global__ void copy_by_call(const Row* x, Row* y) {
  memcpy(y, x, 2 * sizeof(Row));
}
__global__ void zeros(Row*, Row* y) {
  for (int i = 0; i < 25; ++i) y->values[i] = 0;
}
__global__ void zeros_by_call(Row*, Row* y) {
  memset(y, 0, sizeof(Row) + 1);
}

TEST(PlantedFaults, BlocksOfMemory) {
  const DeviceArray<Row> x(1), y(1);
  const auto run = [&](auto kernel) {
    return fault_of([&] { launch(kernel, 1, 1, 0, nullptr, x.data(), y.data()); });
  };
  EXPECT_THAT(run(copy_struct), AllOf(HasSubstr("reads"), HasSubstr("out of bounds")));
  EXPECT_THAT(run(copy_by_call), AllOf(HasSubstr("reads 192"), HasSubstr("out of bounds")));
  EXPECT_THAT(run(zeros), AllOf(HasSubstr("writes"), HasSubstr("out of bounds")));
  EXPECT_THAT(run(zeros_by_call), AllOf(HasSubstr("writes 97"), HasSubstr("out of bounds")));
}

// A thread's own variables lie on its stack, which ends.
__global__ void large_variables(float* y, int n) {
  volatile float own[18 * 1024];
  for (int i = 0; i < 18 * 1024; ++i) own[i] = 1;
  y[0] = own[n];
}

TEST(PlantedFaults, TooManyLocalVariables) {
  const DeviceArray<float> y(1);
  EXPECT_THAT(fault_of([&] { launch(large_variables, 1, 1, 0, nullptr, y.data(), 3); }),
              HasSubstr("its local variables take more than 65536 bytes"));
}

__global__ void lend_a_variable(float* y) {
  __shared__ const float* lent;
  volatile float own = 1;
  if (threadIdx.x == 0) lent = const_cast<const float*>(&own);
  __syncthreads();
  y[threadIdx.x] = *lent + own;
}

TEST(PlantedFaults, AnotherThreadsLocalVariable) {
  const DeviceArray<float> y(2);
  EXPECT_THAT(
      fault_of([&] { launch(lend_a_variable, 1, 2, 0, nullptr, y.data()); }),
      AllOf(HasSubstr("thread (1, 0, 0)"), HasSubstr("a local variable of another thread")));
}

__global__ void wild(float* y, const float* host) {
  y[0] = host[0];
}

TEST(PlantedFaults, HostMemoryAndFreedMemory) {
  const DeviceArray<float> y(1);
  const auto host = std::make_unique<float>(1.0f);
  EXPECT_THAT(fault_of([&] { launch(wild, 1, 1, 0, nullptr, y.data(), host.get()); }),
              HasSubstr("out of bounds"));
  const float* freed = nullptr;
  { freed = DeviceArray<float>(1).data(); }
  EXPECT_THAT(fault_of([&] { launch(wild, 1, 1, 0, nullptr, y.data(), freed); }),
              HasSubstr("out of bounds"));
}

}  // namespace
}  // namespace medvqa::emulation
