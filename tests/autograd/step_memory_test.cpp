#include "medvqa/autograd/step_memory.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "medvqa/ops/dry_backend.h"

namespace medvqa::autograd {
namespace {

constexpr DType kType = DType::f32;

TEST(StepMemory, APieceIsHandedOutAgainForItsOwnShapeOnly) {
  ops::DryBackend dry(ops::DeviceTraits{});
  alignas(kArenaAlignment) static std::byte bytes[1 << 15];
  Arena arena("step", bytes, sizeof(bytes));
  StepMemory memory(dry, arena);
  const auto large = memory.take({100, 8}, kType);
  const auto small = memory.take({10, 8}, kType);
  EXPECT_NE(large.memory, small.memory);
  memory.give_back(large);
  memory.give_back(small);
  EXPECT_EQ(memory.take({10, 8}, kType).memory, small.memory);
  EXPECT_EQ(memory.take({100, 2, 4}, kType).memory, large.memory);  // rows of as many elements
  const std::size_t used = arena.used();
  memory.give_back(large);
  EXPECT_NE(memory.take({100, 8}, DType::bf16).memory, large.memory);
  EXPECT_NE(memory.take({8, 100}, kType).memory, large.memory);
  EXPECT_GT(arena.used(), used);
}

TEST(StepMemory, TakesThePieceWhoseReaderEndsFirst) {
  ops::DryBackend dry(ops::DeviceTraits{});
  Arena device("device"), host("host");
  const Tensor here = device.allocate({4}, kType), there = host.allocate({4}, kType);
  const ops::Transfer first = dry.offload(here, there), second = dry.offload(here, there);
  alignas(kArenaAlignment) static std::byte bytes[1 << 12];
  Arena arena("step", bytes, sizeof(bytes));
  StepMemory memory(dry, arena);
  const auto a = memory.take({4, 8}, kType), b = memory.take({4, 8}, kType);
  memory.give_back(a, second);
  memory.give_back(b, first);
  EXPECT_EQ(memory.take({4, 8}, kType).memory, b.memory);
  EXPECT_EQ(memory.take({4, 8}, kType).memory, a.memory);
}

// What the same takes and returns need, for tensors of `rows` and `patches` rows.
std::size_t need(std::uint32_t seed, std::int64_t rows, std::int64_t patches) {
  ops::DryBackend dry(ops::DeviceTraits{});
  Arena arena("step");
  StepMemory memory(dry, arena);
  std::mt19937 random(seed);
  std::vector<StepMemory::Piece> used;
  for (int round = 0; round < 60; ++round) {
    if (used.size() > 6 || (random() % 3 == 0 && !used.empty())) {
      const std::size_t i = random() % used.size();
      memory.give_back(used[i]);
      used.erase(used.begin() + static_cast<std::ptrdiff_t>(i));
      continue;
    }
    const auto kind = random() % 3;
    if (kind == 0) used.push_back(memory.take({patches, 24}, kType));
    if (kind == 1) used.push_back(memory.take({rows, 40}, kType));
    if (kind == 2) used.push_back(memory.take({patches / 4, 40}, kType));
  }
  return arena.peak();
}

// The plan measures the largest micro-batches only.
TEST(StepMemory, SmallerTensorsNeverNeedMore) {
  for (std::uint32_t seed = 0; seed < 40; ++seed) {
    const std::size_t most = need(seed, 97, 256);
    for (const std::int64_t rows : {96, 90, 70, 50, 30, 5}) {
      for (const std::int64_t patches : {256, 240, 128, 64, 16}) {
        EXPECT_LE(need(seed, rows, patches), most) << seed << ": " << rows << " " << patches;
      }
    }
  }
}

// Pieces in use never overlap, and lie in the arena.
TEST(StepMemory, PiecesInUseAreApart) {
  ops::DryBackend dry(ops::DeviceTraits{});
  alignas(kArenaAlignment) static std::byte bytes[1 << 16];
  Arena arena("step", bytes, sizeof(bytes));
  StepMemory memory(dry, arena);
  std::mt19937 random(7);
  std::vector<StepMemory::Piece> used;
  for (int round = 0; round < 2000; ++round) {
    if (used.size() > 8 || (random() % 3 == 0 && !used.empty())) {
      const std::size_t i = random() % used.size();
      memory.give_back(used[i]);
      used.erase(used.begin() + static_cast<std::ptrdiff_t>(i));
      continue;
    }
    const auto piece = memory.take({1 + static_cast<std::int64_t>(random() % 5), 130}, kType);
    EXPECT_GE(piece.memory, bytes);
    EXPECT_LE(piece.memory + piece.bytes, bytes + sizeof(bytes));
    for (const auto& other : used) {
      EXPECT_TRUE(piece.memory + piece.bytes <= other.memory ||
                  other.memory + other.bytes <= piece.memory);
    }
    used.push_back(piece);
  }
}

}  // namespace
}  // namespace medvqa::autograd
