#include "medvqa/core/arena.h"

#include <gtest/gtest.h>

#include <array>

namespace medvqa {
namespace {

struct Memory {
  alignas(kArenaAlignment) std::array<std::byte, 4096> bytes{};
  Arena arena{"test", bytes.data(), bytes.size()};
};

TEST(Arena, AllocationsAreAlignedAndDoNotOverlap) {
  Memory m;
  const Tensor a = m.arena.allocate({3}, DType::u8);
  const Tensor b = m.arena.allocate({65}, DType::f32);
  const Tensor c = m.arena.allocate({0}, DType::f32);
  const Tensor d = m.arena.allocate({1, 2}, DType::bf16);
  EXPECT_EQ(a.data, m.bytes.data());
  EXPECT_EQ(b.data, m.bytes.data() + 256);
  EXPECT_EQ(c.data, m.bytes.data() + 768);
  EXPECT_EQ(d.data, m.bytes.data() + 768);
  EXPECT_EQ(m.arena.used(), 1024u);
  EXPECT_EQ(d.shape, (Shape{1, 2}));
  EXPECT_EQ(d.dtype, DType::bf16);
}

TEST(Arena, ScopesNestAndGiveBackButThePeakStays) {
  Memory m;
  m.arena.allocate({256}, DType::u8);
  {
    Arena::Scope outer(m.arena);
    m.arena.allocate({512}, DType::u8);
    {
      Arena::Scope inner(m.arena);
      m.arena.allocate({1024}, DType::u8);
      EXPECT_EQ(m.arena.used(), 1792u);
    }
    EXPECT_EQ(m.arena.used(), 768u);
  }
  EXPECT_EQ(m.arena.used(), 256u);
  EXPECT_EQ(m.arena.peak(), 1792u);
  EXPECT_EQ(m.arena.allocate({1}, DType::u8).data, m.bytes.data() + 256);
}

TEST(Arena, AScopeGivesBackWhenAnExceptionPasses) {
  Memory m;
  try {
    Arena::Scope scope(m.arena);
    m.arena.allocate({1000}, DType::u8);
    m.arena.allocate({100000}, DType::u8);
    FAIL();
  } catch (const UserError&) {
  }
  EXPECT_EQ(m.arena.used(), 0u);
}

TEST(Arena, ExhaustionNamesTheSizes) {
  Memory m;
  m.arena.allocate({2048}, DType::u8);
  m.arena.allocate({2048}, DType::u8);  // exactly full is fine
  try {
    m.arena.allocate({1}, DType::f32);
    FAIL();
  } catch (const UserError& e) {
    EXPECT_EQ(e.code(), ExitCode::memory);
    const std::string text = e.what();
    EXPECT_NE(text.find("test"), std::string::npos) << text;
    EXPECT_NE(text.find("4096"), std::string::npos) << text;
    EXPECT_NE(text.find("256"), std::string::npos) << text;
  }
  EXPECT_EQ(m.arena.used(), 4096u);
  EXPECT_EQ(m.arena.peak(), 4096u);
}

TEST(Arena, MeasuringNeverRunsOutAndAgreesWithTheRealOne) {
  Arena measuring("measured");
  EXPECT_TRUE(measuring.measuring());
  const Tensor t = measuring.allocate({1 << 30, 1000}, DType::f64);
  EXPECT_EQ(t.data, nullptr);
  EXPECT_TRUE(static_cast<bool>(t));
  EXPECT_EQ(measuring.peak(), (std::size_t{1} << 30) * 8000);

  Memory m;
  Arena dry("dry");
  for (Arena* arena : {&m.arena, &dry}) {
    Arena::Scope scope(*arena);
    arena->allocate({7}, DType::f32);
    Arena::Scope inner(*arena);
    arena->allocate_like(Tensor(nullptr, DType::f16, {300, 2}));
  }
  EXPECT_FALSE(m.arena.measuring());
  EXPECT_EQ(m.arena.peak(), dry.peak());
  EXPECT_EQ(m.arena.peak(), 256u + 1280u);
}

}  // namespace
}  // namespace medvqa
