// The emulated device without bf16 products, and copies that are made as late as they may be.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/cuda/cuda_backend.h"
#include "machine.h"
#include "matrix.h"
#include "tests/emulation/device_array.h"
#include "tests/support/cases.h"
#include "tests/support/op_modes.h"

namespace medvqa::emulation {
namespace {

using ::testing::HasSubstr;

constexpr int kT4 = 1;

// Emulates an sm_75 while it lives.
class OnT4 : public ::testing::Test {
 protected:
  void TearDown() override { cuda::device_limits(0); }
  testing::TestedBackend tested_{
      "cuda-emulated-sm75", std::make_shared<cuda::CudaBackend>(kT4), {}};
};

template <class T>
__global__ void product(float* y) {
  float c[4] = {};
  const std::uint32_t a[4] = {}, b[2] = {};
  cuda::mma_m16n8k16<T>(c, a, b);
  for (unsigned i = 0; i < 4; ++i) y[4 * threadIdx.x + i] = c[i];
}

TEST_F(OnT4, Bf16ProductsAreFaults) {
  const DeviceArray<float> y(128);
  const auto fault = [&](auto kernel) {
    return fault_of([&] { cuda::launch(kernel, 1, 32, 0, nullptr, y.data()); });
  };
  EXPECT_EQ(fault(product<Float16>), "");
  EXPECT_THAT(fault(product<BFloat16>), HasSubstr("sm_75 has no bf16 products"));
  cuda::device_limits(0);
  EXPECT_EQ(fault(product<BFloat16>), "");
}

TEST_F(OnT4, TestsDoNotAskForBf16) {
  EXPECT_EQ(testing::cuda_types(*tested_.backend), (std::vector{DType::f32, DType::f16}));
  EXPECT_EQ(testing::cuda_types(cuda::CudaBackend(0)),
            (std::vector{DType::f32, DType::bf16, DType::f16}));
}

// They take kernels without matrix fragments, or a library.
TEST_F(OnT4, OperationsOnBf16NeedNone) {
  std::vector<testing::OpCase> cases = testing::nf4_product_cases();
  for (const auto& attention : {testing::attention_cases(), testing::attention_backward_cases()}) {
    // Heads of 64, 80 and 128.
    cases.insert(cases.end(), attention.begin() + 2, attention.begin() + 5);
  }
  for (const testing::OpCase& c : cases) {
    EXPECT_EQ(testing::check_reference(c, tested_, DType::bf16), testing::Failures{}) << c.name;
  }
}

TEST(LateCopies, AreMadeInOrderWhenAwaited) {
  int device = 1, host = 2, back = 3;
  cuda::CopyQueue queue(nullptr);
  const auto out = queue.to_host(&host, &device, sizeof(int));
  const auto in = queue.to_device(&back, &host, sizeof(int));
  EXPECT_EQ(queue.to_device(&back, &host, 0), 0u) << "nothing to wait for";
  queue.await(0);
  EXPECT_EQ(host, 2);
  device = 4;  // too early: this is what is sent
  queue.await(out);
  EXPECT_EQ(host, 4);
  EXPECT_EQ(back, 3);
  queue.await(in);
  EXPECT_EQ(back, 4);
  host = 5;
  queue.await(in);
  EXPECT_EQ(back, 4) << "made twice";
}

TEST(LateCopies, HaveEndedBeforeTheirMemoryOrQueueIs) {
  int value = 1, copy = 0;
  auto queue = std::make_unique<cuda::CopyQueue>(nullptr);
  queue->to_host(&copy, &value, sizeof(int));
  cuda::allocate_device_memory(8);  // freed at once
  EXPECT_EQ(copy, 1);
  value = 2;
  queue->to_host(&copy, &value, sizeof(int));
  queue.reset();
  EXPECT_EQ(copy, 2);
}

}  // namespace
}  // namespace medvqa::emulation
