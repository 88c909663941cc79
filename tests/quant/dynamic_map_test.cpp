#include "medvqa/quant/dynamic_map.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/quant/golden.h"

namespace medvqa::quant {
namespace {

TEST(DynamicMap, EqualsPyTorchBitForBit) {
  const auto& s = signed_dynamic_map();
  const auto& u = unsigned_dynamic_map();
  EXPECT_EQ(std::vector<float>(s.begin(), s.end()), golden().floats("map.signed"));
  EXPECT_EQ(std::vector<float>(u.begin(), u.end()), golden().floats("map.unsigned"));
}

TEST(DynamicMap, SearchFindsTheNearestEntry) {
  for (const bool is_signed : {true, false}) {
    const auto& map = is_signed ? signed_dynamic_map() : unsigned_dynamic_map();
    for (int i = 0; i <= 20000; ++i) {
      const float unit = static_cast<float>(i) / 20000.0f;
      const float cubed = unit * unit * unit;
      const float x = is_signed && i % 2 == 1 ? -cubed : cubed;
      const float found = map[search_map(map.data(), x, is_signed)];
      float best = std::numeric_limits<float>::infinity();
      for (const float entry : map) best = std::min(best, std::fabs(entry - x));
      EXPECT_LE(std::fabs(found - x), best * (1.0f + 0x1p-20f) + 0x1p-26f) << x;
    }
  }
}

TEST(DynamicMap, SearchReturnsEveryEntryForItself) {
  for (int i = 0; i < 256; ++i) {
    const auto k = static_cast<std::size_t>(i);
    EXPECT_EQ(search_map(signed_dynamic_map().data(), signed_dynamic_map()[k], true), i);
    EXPECT_EQ(search_map(unsigned_dynamic_map().data(), unsigned_dynamic_map()[k], false), i);
  }
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(search_map(signed_dynamic_map().data(), nan, true), 0);
}

// At the points of the grid itself both searches find the same entry.
TEST(DynamicMap, GridCodesAreTheNearestEntryOfThePoint) {
  EXPECT_EQ(grid_index(-1.0f), 0);
  EXPECT_EQ(grid_index(1.0f), kGridPoints - 1);
  EXPECT_EQ(grid_index(7.0f), kGridPoints - 1);
  EXPECT_EQ(grid_index(-std::numeric_limits<float>::infinity()), 0);
  EXPECT_EQ(grid_index(std::numeric_limits<float>::quiet_NaN()), 0);
  for (int i = 0; i < kGridPoints; ++i) {
    const float x = -1.0f + 2.0f * static_cast<float>(i) / static_cast<float>(kGridPoints - 1);
    const auto k = static_cast<std::size_t>(i);
    ASSERT_EQ(signed_grid_codes()[k], search_map(signed_dynamic_map().data(), x, true)) << i;
    if (x >= 0) {
      ASSERT_EQ(unsigned_grid_codes()[k], search_map(unsigned_dynamic_map().data(), x, false));
    }
  }
  EXPECT_EQ(unsigned_grid_codes()[static_cast<std::size_t>(grid_index(0.0f))], 7);
}

}  // namespace
}  // namespace medvqa::quant
