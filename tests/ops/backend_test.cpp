// What the public methods of Backend refuse, and what they take from the scratch memory.
#include "medvqa/ops/backend.h"

#include <gtest/gtest.h>

#include <array>

#include "medvqa/ops/dry_backend.h"
#include "medvqa/ops/scratch.h"

namespace medvqa::ops {
namespace {

struct Dry {
  Arena scratch{"scratch"};
  DryBackend backend{DeviceTraits{.name = "dry", .threads = 3, .gemm_in_f16 = false}};
  Dry() { backend.use_scratch(scratch); }
};

Tensor tensor(Shape shape, DType type = DType::f32) {
  return Tensor(nullptr, type, shape);
}

Gemm product() {
  return {.a = tensor({4, 8}), .b = tensor({8, 5}), .c = tensor({4, 5})};
}

TEST(Backend, GemmRefusesWhatDoesNotFit) {
  Dry d;
  EXPECT_NO_THROW(d.backend.gemm(product()));
  const auto refused = [&](auto change) {
    Gemm p = product();
    change(p);
    EXPECT_THROW(d.backend.gemm(p), InternalError);
  };
  refused([](Gemm& p) { p.b = tensor({7, 5}); });
  refused([](Gemm& p) { p.transpose_b = Transpose::yes; });
  refused([](Gemm& p) { p.transpose_a = Transpose::yes; });
  refused([](Gemm& p) { p.c = tensor({5, 5}); });
  refused([](Gemm& p) { p.b = tensor({8, 5}, DType::bf16); });
  refused([](Gemm& p) { p.c = tensor({4, 5}, DType::bf16); });
  refused([](Gemm& p) { p.bias_N = tensor({4}); });
  refused([](Gemm& p) { p.bias_N = tensor({5}, DType::bf16); });
  refused([](Gemm& p) { p.residual_MN = tensor({4, 4}); });
  refused([](Gemm& p) { p.preactivation_MN = tensor({5, 4}); });
  refused([](Gemm& p) {
    p.residual_MN = tensor({4, 5});
    p.accumulate = true;
  });
  refused([](Gemm& p) { p.a = p.b = p.c = tensor({4, 4}, DType::i32); });
}

TEST(Backend, OperationsWithoutScratchMemoryAreRefused) {
  DryBackend backend({});
  EXPECT_THROW(backend.gemm(product()), InternalError);
}

TEST(Backend, ScratchIsGivenBackWithTheCall) {
  Dry d;
  Gemm narrow = product();
  for (Tensor* t : {&narrow.a, &narrow.b, &narrow.c}) t->dtype = DType::f16;
  d.backend.gemm(narrow);
  EXPECT_EQ(d.scratch.used(), 0u);
  const std::size_t before = d.scratch.peak();
  EXPECT_GT(before, 0u);
  Nf4Weight weight;
  weight.out = 128;
  weight.in = 64;
  d.backend.nf4_product({.x_MI = tensor({3, 64}), .weight = weight, .y_MO = tensor({3, 128})});
  EXPECT_EQ(d.scratch.used(), 0u);
  EXPECT_GT(d.scratch.peak(), before);
}

TEST(Backend, AttentionRefusesWhatDoesNotFit) {
  Dry d;
  const Attention good{.q_THD = tensor({6, 4, 8}),
                       .k_SGD = tensor({7, 2, 8}),
                       .v_SGD = tensor({7, 2, 8}),
                       .y_THD = tensor({6, 4, 8}),
                       .lse_HT = tensor({4, 6}),
                       .cu_q_N = tensor({3}, DType::i32),
                       .cu_k_N = tensor({3}, DType::i32),
                       .max_q = 4,
                       .max_k = 5};
  EXPECT_NO_THROW(d.backend.attention(good));
  const auto refused = [&](auto change) {
    Attention p = good;
    change(p);
    EXPECT_THROW(d.backend.attention(p), InternalError);
  };
  refused([](Attention& p) { p.k_SGD = p.v_SGD = tensor({7, 3, 8}); });
  refused([](Attention& p) { p.k_SGD = p.v_SGD = tensor({7, 2, 4}); });
  refused([](Attention& p) { p.v_SGD = tensor({6, 2, 8}); });
  refused([](Attention& p) { p.y_THD = tensor({6, 32}); });
  refused([](Attention& p) { p.lse_HT = tensor({6, 4}); });
  refused([](Attention& p) { p.cu_k_N = tensor({2}, DType::i32); });
  refused([](Attention& p) { p.cu_q_N = tensor({3}); });
  refused([](Attention& p) { p.k_SGD = p.v_SGD = tensor({7, 2, 8}, DType::bf16); });
}

TEST(Backend, OtherContracts) {
  Dry d;
  Backend& b = d.backend;
  const Tensor strided = tensor({4, 8}).columns(0, 3);
  EXPECT_THROW(b.copy(tensor({2, 3}), tensor({3, 2})), InternalError);
  EXPECT_THROW(b.copy(tensor({2, 3}), tensor({2, 3}, DType::bf16)), InternalError);
  EXPECT_THROW(b.convert(strided, tensor({4, 3})), InternalError);
  EXPECT_THROW(b.fill(strided, 0), InternalError);
  EXPECT_THROW(b.upload(nullptr, 11, tensor({3})), InternalError);
  EXPECT_THROW(b.download(tensor({3}), nullptr, 13), InternalError);
  EXPECT_THROW(b.quantize_nf4(tensor({65}), tensor({33}, DType::u8), tensor({1})), InternalError);
  EXPECT_THROW(b.rms_norm({.x_TC = tensor({2, 3}),
                           .weight_C = tensor({2}),
                           .eps = 1e-6,
                           .y_TC = tensor({2, 3}),
                           .inv_rms_T = tensor({2})}),
               InternalError);
  EXPECT_THROW(b.rotary({.x_TC = tensor({2, 8}),
                         .heads = 3,
                         .head_size = 4,
                         .cos_TF = tensor({2, 2}),
                         .sin_TF = tensor({2, 2})}),
               InternalError);
  EXPECT_THROW(b.dropout({.x_TC = tensor({2, 3}), .y_TC = {tensor({2, 3}), false}, .p = 1.0}),
               InternalError);
  EXPECT_THROW(b.gather_rows(tensor({5, 3}), tensor({2}), tensor({2, 3})), InternalError);
  EXPECT_THROW(b.global_norm(std::array{tensor({2}, DType::bf16)}, tensor({1})), InternalError);
  EXPECT_THROW(b.adamw({.tensors = {}, .step = 0}), InternalError);
  EXPECT_EQ(d.scratch.peak(), 0u);
}

// A gradient nobody needs is not looked at.
TEST(Backend, AbsentGradientsAreSkipped) {
  Dry d;
  EXPECT_NO_THROW(d.backend.accumulate(tensor({2}), {}));
  EXPECT_NO_THROW(
      d.backend.activation_backward(Activation::silu, tensor({2, 2}), tensor({2, 2}), {}));
  EXPECT_NO_THROW(d.backend.rms_norm_backward({}));
  EXPECT_NO_THROW(d.backend.layer_norm_backward({}));
}

TEST(Scratch, IsAFunctionOfShapesAndTraits) {
  Dry d;
  Gemm p{.a = tensor({4, 8}, DType::f16),
         .b = tensor({8, 5}, DType::f16),
         .c = tensor({4, 5}, DType::f16)};
  d.backend.gemm(p);
  EXPECT_EQ(d.scratch.peak(), 3u * 256u);  // f32 copies of 32, 40 and 20 elements
  EXPECT_EQ(d.scratch.used(), 0u);
  DeviceTraits native{.name = "native", .threads = 1, .gemm_in_f16 = true, .gemm_workspace = 1024};
  EXPECT_EQ(scratch_bytes(p, native), 1024u);
  LinearCrossEntropy loss{};
  loss.x_RC = tensor({100, 16}, DType::bf16);
  loss.weight_VC = tensor({1000, 16}, DType::bf16);
  native.gemm_workspace = 0;
  EXPECT_EQ(scratch_bytes(loss, native), 64u * 1000u * (4u + 2u));
}

// A T4's kernels of bf16 products trap: there the weight is dequantised and a library multiplies.
TEST(Nf4Product, IsFusedInTypesTheDeviceMultiplies) {
  const DeviceTraits cpu;
  DeviceTraits t4, a100;
  t4.compute = DType::f16;
  a100.compute = DType::bf16;
  add_cuda_kernels(t4);
  add_cuda_kernels(a100);
  EXPECT_FALSE(has_bf16(t4));
  EXPECT_TRUE(has_bf16(a100));
  EXPECT_TRUE(has_bf16(cpu));
  const auto of = [](DType type, std::int64_t rows = 4, std::int64_t in = 128) {
    Nf4Product p;
    p.x_MI = tensor({rows, in}, type);
    p.y_MO = tensor({rows, 64}, type);
    p.weight.out = 64;
    p.weight.in = in;
    return p;
  };
  EXPECT_FALSE(fused(of(DType::bf16), t4));
  EXPECT_GT(scratch_bytes(of(DType::bf16), t4), 0u);
  EXPECT_TRUE(fused(of(DType::f16), t4));
  EXPECT_EQ(scratch_bytes(of(DType::f16), t4), 0u);
  for (const DType type : {DType::bf16, DType::f16}) {
    EXPECT_TRUE(fused(of(type), a100));
    EXPECT_FALSE(fused(of(type, 65), a100));
    EXPECT_FALSE(fused(of(type, 4, 192), a100));
    EXPECT_FALSE(fused(of(type), cpu));
  }
  EXPECT_FALSE(fused(of(DType::f32), a100));
}

}  // namespace
}  // namespace medvqa::ops
