// The optimizer through the backend against the trace bitsandbytes left, on every backend.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "tests/quant/golden.h"
#include "tests/support/backends.h"

namespace medvqa::testing {
namespace {

// Device tensors with host vectors of their own type going in and out.
class Store {
 public:
  explicit Store(ops::Backend& backend) : backend_(backend) {}
  template <class T>
  Tensor put(const std::vector<T>& values) {
    const std::size_t bytes = values.size() * sizeof(T);
    memory_.push_back(backend_.allocate_memory(bytes));
    const Tensor t(memory_.back().get(), dtype_of<T>(), {static_cast<std::int64_t>(values.size())});
    backend_.upload(values.data(), bytes, t);
    return t;
  }
  template <class T>
  std::vector<T> get(const Tensor& t) {
    std::vector<T> values(static_cast<std::size_t>(t.elements()));
    backend_.download(t, values.data(), t.bytes());
    return values;
  }

 private:
  ops::Backend& backend_;
  std::vector<std::shared_ptr<void>> memory_;
};

std::string key(const char* tensor, const char* what, int step) {
  return std::string(tensor) + "." + what + std::to_string(step);
}

void take_step(ops::Backend& backend, const ops::AdamWTensor& t, int step) {
  backend.adamw(
      {.tensors = std::span(&t, 1), .learning_rate = 2e-4, .weight_decay = 0.01, .step = step});
}

// PyTorch's square root, from MKL, is not correctly rounded: parameters an ulp or two off.
void expect_near(const std::vector<float>& got, const std::vector<float>& expected, int step) {
  ASSERT_EQ(got.size(), expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], expected[i], 2e-8f) << step;
}

TEST(AdamW, EightBitTraceOfBitsandbytes) {
  for (const TestedBackend& b : available_backends()) {
    Store store(*b.backend);
    const std::vector<float> p0 = quant::golden().floats("adamw8.p0");
    const std::vector<std::uint8_t> codes(p0.size(), 0);
    const std::vector<float> maxima(p0.size() / 256, 0);
    ops::AdamWTensor t{store.put(p0),    {}, store.put(codes), store.put(codes), store.put(maxima),
                       store.put(maxima)};
    for (int step = 1; step <= 5; ++step) {
      t.grad = store.put(quant::golden().floats(key("adamw8", "g", step)));
      take_step(*b.backend, t, step);
      using Codes = std::uint8_t;
      EXPECT_EQ(store.get<Codes>(t.m), quant::golden().raw<Codes>(key("adamw8", "m", step)));
      EXPECT_EQ(store.get<Codes>(t.v), quant::golden().raw<Codes>(key("adamw8", "v", step)));
      EXPECT_EQ(store.get<float>(t.m_absmax),
                quant::golden().floats(key("adamw8", "m_absmax", step)));
      EXPECT_EQ(store.get<float>(t.v_absmax),
                quant::golden().floats(key("adamw8", "v_absmax", step)));
      expect_near(store.get<float>(t.value), quant::golden().floats(key("adamw8", "p", step)),
                  step);
    }
  }
}

TEST(AdamW, F32TraceOfBitsandbytes) {
  for (const TestedBackend& b : available_backends()) {
    Store store(*b.backend);
    const std::vector<float> p0 = quant::golden().floats("adamw8_small.p0");
    const std::vector<float> zero(p0.size(), 0);
    ops::AdamWTensor t{store.put(p0), {}, store.put(zero), store.put(zero)};
    for (int step = 1; step <= 5; ++step) {
      t.grad = store.put(quant::golden().floats(key("adamw8_small", "g", step)));
      take_step(*b.backend, t, step);
      EXPECT_EQ(store.get<float>(t.m), quant::golden().floats(key("adamw8_small", "m", step)));
      EXPECT_EQ(store.get<float>(t.v), quant::golden().floats(key("adamw8_small", "v", step)));
      expect_near(store.get<float>(t.value), quant::golden().floats(key("adamw8_small", "p", step)),
                  step);
    }
  }
}

// Of equal largest logits the first counts.
TEST(LinearCrossEntropy, TiesGoToTheFirst) {
  for (const TestedBackend& b : available_backends()) {
    Store store(*b.backend);
    const Tensor x = store.put(std::vector<float>{1, 1, 1});
    const Tensor w = store.put(std::vector<float>{0, 2, 2, 1});
    const Tensor labels = store.put(std::vector<std::int32_t>{1, 2, 0});
    const Tensor nll = store.put(std::vector<float>(3));
    const Tensor correct = store.put(std::vector<std::int32_t>(3, -1));
    const std::shared_ptr<void> memory = b.backend->allocate_memory(1 << 16);
    Arena scratch("scratch", memory.get(), 1 << 16);
    b.backend->use_scratch(scratch);
    b.backend->linear_cross_entropy({.x_RC = x.reshaped({3, 1}),
                                     .weight_VC = w.reshaped({4, 1}),
                                     .labels_R = labels,
                                     .nll_R = nll,
                                     .correct_R = correct});
    EXPECT_EQ(store.get<std::int32_t>(correct), (std::vector<std::int32_t>{1, 0, 0}));
    const double sum = std::exp(-2.0) + 2 + std::exp(-1.0);
    EXPECT_NEAR(store.get<float>(nll)[0], std::log(sum), 1e-6);
    EXPECT_NEAR(store.get<float>(nll)[2], std::log(sum) + 2, 1e-6);
  }
}

}  // namespace
}  // namespace medvqa::testing
