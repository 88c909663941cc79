// What a library's attention is told of the samples, and how its statistics come back.
#include "kernels/cuda/library_attention.h"

#include <gtest/gtest.h>

#include "medvqa/ops/scratch.h"
#include "tests/emulation/device_array.h"

namespace medvqa::emulation {
namespace {

using cuda::LibraryOperands;

// Three samples, of which the library is told that there are four; 2 query heads on 1.
struct Batch {
  static constexpr std::int64_t kHeads = 2, kSize = 64, kRows = 9;
  const std::vector<std::int32_t> cu{0, 3, 4, 9};
  DeviceArray<std::int32_t> cu_memory{cu};
  DeviceArray<float> lse{std::vector<float>(kHeads * kRows, -1)};
  ops::Attention p;

  Batch() {
    const Tensor cu_N(cu_memory.data(), DType::i32, {4});
    p = {.q_THD = Tensor(nullptr, DType::bf16, {kRows, kHeads, kSize}),
         .k_SGD = Tensor(nullptr, DType::bf16, {kRows, 1, kSize}),
         .v_SGD = Tensor(nullptr, DType::bf16, {kRows, 1, kSize}),
         .y_THD = Tensor(nullptr, DType::bf16, {kRows, kHeads, kSize}),
         .lse_HT = Tensor(lse.data(), DType::f32, {kHeads, kRows}),
         .cu_q_N = cu_N,
         .cu_k_N = cu_N,
         .max_q = 5,
         .max_k = 5};
    p.q_THD.row_stride = 256;
    p.k_SGD.row_stride = 256;
  }
};

TEST(LibraryAttention, OffsetsAndLengthsAreOfTheBatchAndEmptyBeyond) {
  const Batch batch;
  const ops::LibraryAttentionScratch layout = ops::library_attention_scratch(batch.p);
  ASSERT_EQ(layout.samples, 4);
  ASSERT_EQ(layout.length, 128);
  // A byte more and less than this is a fault of the emulator's.
  const DeviceArray<std::int32_t> memory(std::vector<std::int32_t>(layout.lse_at / 4, -7));
  const Tensor scratch(memory.data(), DType::u8, {static_cast<std::int64_t>(layout.lse_at)});
  const LibraryOperands o = cuda::library_operands(batch.p, scratch);
  cuda::write_library_operands(batch.p, o, nullptr);
  const std::vector<std::int32_t> wanted{0, 768, 1024, 2304, 2304,  // q, rows of 256
                                         0, 768, 1024, 2304, 2304,  // k
                                         0, 192, 256,  576,  576,   // v, rows of 64
                                         0, 384, 512,  1152, 1152,  // y, rows of 128
                                         3, 1,   5,    0};
  std::vector<std::int32_t> written = memory.values();
  EXPECT_EQ(std::vector<std::int32_t>(written.begin() + 24, written.end()),
            std::vector<std::int32_t>(written.size() - 24, -7));
  written.resize(wanted.size());
  EXPECT_EQ(written, wanted);
}

TEST(LibraryAttention, StatisticsLoseTheirPadding) {
  const Batch batch;
  const ops::LibraryAttentionScratch layout = ops::library_attention_scratch(batch.p);
  const auto count = static_cast<std::size_t>(layout.samples * Batch::kHeads * layout.length);
  std::vector<float> statistics(count);
  for (std::size_t i = 0; i < count; ++i) statistics[i] = static_cast<float>(i);
  const DeviceArray<float> memory(statistics);
  LibraryOperands o;
  o.samples = layout.samples;
  o.length = layout.length;
  o.lse = memory.data();
  cuda::read_library_lse(batch.p, o, nullptr);
  // (sample * 2 + head) * 128 + row.
  const std::vector<float> wanted{0,   1,   2,   256, 512, 513, 514, 515, 516,
                                  128, 129, 130, 384, 640, 641, 642, 643, 644};
  EXPECT_EQ(batch.lse.values(), wanted);
}

TEST(LibraryAttention, ScratchIsForWhatTheLibraryTakes) {
  const auto bytes = [](auto change) {
    Batch batch;
    change(batch.p);
    return ops::library_attention_scratch(batch.p).bytes;
  };
  // 24 integers and 4 x 2 x 128 statistics, each from a multiple of 256 bytes on.
  EXPECT_EQ(bytes([](ops::Attention&) {}), 256u + 4096u + ops::kLibraryAttentionWorkspace);
  EXPECT_EQ(bytes([](ops::Attention& p) { p.max_k = 4; }), 0u);
  EXPECT_EQ(bytes([](ops::Attention& p) { p.q_THD.dtype = DType::f32; }), 0u);
  EXPECT_EQ(bytes([](ops::Attention& p) { p.q_THD.shape = Shape{9, 2, 136}; }), 0u);
  EXPECT_EQ(bytes([](ops::Attention& p) { p.q_THD.shape = Shape{9, 2, 20}; }), 0u);
  EXPECT_EQ(bytes([](ops::Attention& p) { p.max_q = p.max_k = 1 << 24; }), 0u);
}

}  // namespace
}  // namespace medvqa::emulation
