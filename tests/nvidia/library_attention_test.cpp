// cuDNN's attention against our own kernels, on a device.
#include "kernels/cuda/library_attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>
#include <vector>

#include "kernels/cuda/cuda_backend.h"
#include "medvqa/ops/scratch.h"
#include "tests/support/random_values.h"

namespace medvqa::cuda {
namespace {

struct Case {
  std::int64_t heads, groups, size;
  bool causal;
};

struct Result {
  std::vector<float> y, lse;
};

// Packed queries, keys and values of four samples, and one of two attentions of them.
class Batch {
 public:
  Batch(const Case& c, DType type) : c_(c), type_(type) {
    const Tensor packed = memory({kRows, c.heads + 2 * c.groups, c.size}, type);
    const Tensor values = memory(packed.shape, DType::f32);
    const std::vector<float> uniform = random_floats(values.elements());
    backend_.upload(uniform.data(), values.bytes(), values);
    backend_.convert(values, packed);
    const Tensor flat = packed.reshaped({kRows, packed.row_elements()});
    const std::int64_t q_end = c.heads * c.size, k_end = q_end + c.groups * c.size;
    const Tensor cu = memory({static_cast<std::int64_t>(kCu.size())}, DType::i32);
    backend_.upload(kCu.data(), cu.bytes(), cu);
    p_ = {.q_THD = flat.columns(0, q_end).reshaped({kRows, c.heads, c.size}),
          .k_SGD = flat.columns(q_end, k_end).reshaped({kRows, c.groups, c.size}),
          .v_SGD = flat.columns(k_end, flat.dim(1)).reshaped({kRows, c.groups, c.size}),
          .y_THD = {},
          .lse_HT = {},
          .cu_q_N = cu,
          .cu_k_N = cu,
          .max_q = 600,
          .max_k = 600,
          .causal = c.causal,
          .scale = 1 / std::sqrt(static_cast<double>(c.size))};
  }

  // `run` is told where results go.
  template <class Run>
  Result result_of(Run&& run) {
    p_.y_THD = memory({kRows, c_.heads, c_.size}, type_);
    p_.lse_HT = memory({c_.heads, kRows}, DType::f32);
    run(p_);
    const Tensor y = memory(p_.y_THD.shape, DType::f32);
    backend_.convert(p_.y_THD, y);
    Result r{std::vector<float>(static_cast<std::size_t>(y.elements())),
             std::vector<float>(static_cast<std::size_t>(p_.lse_HT.elements()))};
    backend_.download(y, r.y.data(), y.bytes());
    backend_.download(p_.lse_HT, r.lse.data(), p_.lse_HT.bytes());
    return r;
  }
  CudaBackend& backend() { return backend_; }
  Tensor memory(Shape shape, DType type) {
    Tensor t(nullptr, type, shape);
    held_.push_back(backend_.allocate_memory(t.bytes()));
    t.data = held_.back().get();
    return t;
  }

 private:
  static constexpr std::int64_t kRows = 930;
  static inline const std::vector<std::int32_t> kCu{0, 1, 130, 730, 930};

  // Uniform in [-1, 1], the same in every run.
  static std::vector<float> random_floats(std::int64_t n) {
    std::vector<float> v;
    for (const double x : testing::random_values("attention", n)) {
      v.push_back(static_cast<float>(x));
    }
    return v;
  }

  Case c_;
  DType type_;
  CudaBackend backend_;
  std::vector<std::shared_ptr<void>> held_;
  ops::Attention p_;
};

TEST(LibraryAttention, AgreesWithOurKernels) {
  if (CudaBackend::devices() == 0) GTEST_SKIP() << "no device here";
  const DeviceLimits device = device_limits(0);
  if (device.architecture < 80) GTEST_SKIP() << "cuDNN's attention begins with sm_80";
  for (const DType type : {DType::bf16, DType::f16}) {
    for (const Case& c : {Case{4, 4, 64, false}, Case{16, 16, 80, false}, Case{12, 2, 128, true},
                          Case{8, 2, 64, true}}) {
      SCOPED_TRACE(std::string(name_of(type)) + ", heads of " + std::to_string(c.size));
      setenv("MEDVQA_LIBRARY_ATTENTION", "0", 1);  // the backend's attention is ours
      Batch batch(c, type);
      unsetenv("MEDVQA_LIBRARY_ATTENTION");
      const Stream stream = make_stream();
      LibraryAttention library(device, stream);
      const auto with_scratch = [&](const ops::Attention& p, auto&& run) {
        const auto bytes = ops::scratch_bytes(p, batch.backend().traits());
        const Tensor scratch = batch.memory({static_cast<std::int64_t>(bytes)}, DType::u8);
        run(scratch);
      };
      const Result ours = batch.result_of([&](const ops::Attention& p) {
        with_scratch(p, [&](const Tensor& t) {
          Arena arena("scratch", t.data, t.bytes());
          batch.backend().use_scratch(arena);
          batch.backend().attention(p);
        });
      });
      const Result theirs = batch.result_of([&](const ops::Attention& p) {
        with_scratch(p, [&](const Tensor& t) {
          EXPECT_TRUE(library.forward(p, t)) << "cuDNN did not serve this";
          synchronise(stream);
        });
      });
      // Values are at most 1. Either rounds probabilities, whose sum is 1, and results.
      const double unit = type == DType::bf16 ? 0x1p-9 : 0x1p-12;
      const double tolerance = 2 * (2 * unit);
      double largest = 0, largest_lse = 0;
      for (std::size_t i = 0; i < ours.y.size(); ++i) {
        largest = std::max(largest, std::abs(double{ours.y[i]} - theirs.y[i]));
      }
      for (std::size_t i = 0; i < ours.lse.size(); ++i) {
        largest_lse = std::max(largest_lse, std::abs(double{ours.lse[i]} - theirs.lse[i]));
      }
      EXPECT_LE(largest, tolerance);
      // Scores are sums of `size` products in f32, at most sqrt(size) after scaling.
      EXPECT_LE(largest_lse, 2 * 0x1p-24 * static_cast<double>(c.size) * std::sqrt(c.size));
      destroy_stream(stream);
    }
  }
}

}  // namespace
}  // namespace medvqa::cuda
