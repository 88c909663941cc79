#include "medvqa/autograd/step_memory.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "medvqa/ops/dry_backend.h"

namespace medvqa::autograd {
namespace {

TEST(StepMemory, TakesTheSmallestPieceThatIsLargeEnough) {
  ops::DryBackend dry(ops::DeviceTraits{});
  Arena arena("step");
  StepMemory memory(dry, arena);
  const auto large = memory.take(4 * kArenaAlignment);
  const auto between = memory.take(1);
  const auto small = memory.take(2 * kArenaAlignment);
  const auto last = memory.take(kArenaAlignment);
  memory.give_back(large);
  memory.give_back(small);
  EXPECT_EQ(memory.take(kArenaAlignment + 1).begin, small.begin);
  EXPECT_EQ(memory.take(3 * kArenaAlignment).begin, large.begin);
  EXPECT_EQ(memory.take(1).begin, large.begin + 3 * kArenaAlignment);  // what was left of it
  EXPECT_EQ(arena.used(), last.begin + kArenaAlignment);
  EXPECT_NE(between.begin, small.begin);
}

TEST(StepMemory, NeighboursBecomeOnePiece) {
  ops::DryBackend dry(ops::DeviceTraits{});
  Arena arena("step");
  StepMemory memory(dry, arena);
  std::vector<StepMemory::Piece> pieces;
  for (int i = 0; i < 4; ++i) pieces.push_back(memory.take(kArenaAlignment));
  for (const int i : {0, 2, 3, 1}) memory.give_back(pieces[static_cast<std::size_t>(i)]);
  EXPECT_EQ(memory.take(4 * kArenaAlignment).begin, pieces[0].begin);
  EXPECT_EQ(arena.used(), 4 * kArenaAlignment);
}

// Pieces in use never overlap, and point into the arena where they say.
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
    const auto piece = memory.take(random() % 3000);
    EXPECT_EQ(piece.memory, bytes + piece.begin);
    for (const auto& other : used) {
      EXPECT_TRUE(piece.begin + piece.bytes <= other.begin ||
                  other.begin + other.bytes <= piece.begin);
    }
    used.push_back(piece);
  }
}

}  // namespace
}  // namespace medvqa::autograd
