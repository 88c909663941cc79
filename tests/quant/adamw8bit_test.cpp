#include "medvqa/quant/adamw8bit.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdlib>

#include "tests/quant/golden.h"

namespace medvqa::quant {
namespace {

AdamWFactors golden_factors(int step) {
  AdamWStep s;
  s.lr = 2e-4;
  s.weight_decay = 0.01;
  s.step = step;
  return adamw_factors(s);
}

std::string key(const char* tensor, const char* what, int step) {
  return std::string(tensor) + "." + what + std::to_string(step);
}

// Distance in units in the last place of two finite floats of the same sign.
int ulps_between(float a, float b) {
  return std::abs(std::bit_cast<std::int32_t>(a) - std::bit_cast<std::int32_t>(b));
}

int largest_ulps(const std::vector<float>& a, const std::vector<float>& b) {
  int largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) largest = std::max(largest, ulps_between(a[i], b[i]));
  return largest;
}

// States and maxima are bitsandbytes' bits over all five steps. Parameters are an ulp or two off:
// PyTorch's square root comes from MKL, which does not round correctly.
TEST(AdamW8Bit, FollowsTheTraceOfBitsandbytes) {
  std::vector<float> p = golden().floats("adamw8.p0");
  std::vector<std::uint8_t> m(p.size(), 0), v(p.size(), 0);
  std::vector<float> m_absmax(p.size() / 256, 0.0f), v_absmax(p.size() / 256, 0.0f);
  const AdamWTables tables = adamw_tables();
  for (int step = 1; step <= 5; ++step) {
    const std::vector<float> g = golden().floats(key("adamw8", "g", step));
    const AdamWFactors f = golden_factors(step);
    for (std::size_t b = 0; b < m_absmax.size(); ++b) {
      const std::size_t i = b * 256;
      adamw_block_8bit(f, tables, 256, &g[i], &p[i], &m[i], &v[i], m_absmax[b], v_absmax[b]);
    }
    EXPECT_EQ(m, golden().raw<std::uint8_t>(key("adamw8", "m", step))) << step;
    EXPECT_EQ(v, golden().raw<std::uint8_t>(key("adamw8", "v", step))) << step;
    EXPECT_EQ(m_absmax, golden().floats(key("adamw8", "m_absmax", step))) << step;
    EXPECT_EQ(v_absmax, golden().floats(key("adamw8", "v_absmax", step))) << step;
    const std::vector<float> expected = golden().floats(key("adamw8", "p", step));
    double worst = 0;
    for (std::size_t i = 0; i < p.size(); ++i) {
      worst =
          std::max(worst, std::fabs(static_cast<double>(p[i]) - static_cast<double>(expected[i])));
    }
    EXPECT_LT(worst, 2e-8) << step;
  }
}

TEST(AdamW8Bit, F32StatesFollowTheTraceOfBitsandbytes) {
  std::vector<float> p = golden().floats("adamw8_small.p0");
  std::vector<float> m(p.size(), 0.0f), v(p.size(), 0.0f);
  for (int step = 1; step <= 5; ++step) {
    const std::vector<float> g = golden().floats(key("adamw8_small", "g", step));
    adamw_elements_32bit(golden_factors(step), p.size(), g.data(), p.data(), m.data(), v.data());
    EXPECT_EQ(m, golden().floats(key("adamw8_small", "m", step))) << step;
    EXPECT_EQ(v, golden().floats(key("adamw8_small", "v", step))) << step;
    EXPECT_LE(largest_ulps(p, golden().floats(key("adamw8_small", "p", step))), 1) << step;
  }
}

TEST(AdamW8Bit, ShortBlocksAndZeroGradientsAreHarmless) {
  std::vector<float> p(100, 1.0f), g(100, 0.0f);
  std::vector<std::uint8_t> m(100, 0), v(100, 0);
  float m_absmax = 0, v_absmax = 0;
  for (const auto rounding : {CodeRounding::grid, CodeRounding::nearest}) {
    adamw_block_8bit(golden_factors(1), adamw_tables(rounding), 100, g.data(), p.data(), m.data(),
                     v.data(), m_absmax, v_absmax);
    EXPECT_EQ(m_absmax, 0.0f);
    EXPECT_EQ(v_absmax, 0.0f);
    EXPECT_EQ(m, std::vector<std::uint8_t>(100, 0));
  }
  EXPECT_EQ(p[0], (1.0f * golden_factors(1).decay) * golden_factors(1).decay);
}

// Of a maximum below 2.94e-39 the inverse is infinite: bitsandbytes on a CPU stores the largest
// code for whatever is not 0, and code 0 for 0.
TEST(AdamW8Bit, BlocksOfDenormalMomentsAreStored) {
  const std::vector<float> g = {3e-19f, 0.0f, -2e-19f};
  std::vector<float> p(3, 1.0f);
  std::vector<std::uint8_t> m(3, 0), v(3, 0);
  float m_absmax = 0, v_absmax = 0;
  adamw_block_8bit(golden_factors(1), adamw_tables(), 3, g.data(), p.data(), m.data(), v.data(),
                   m_absmax, v_absmax);
  EXPECT_EQ(
      m, (std::vector<std::uint8_t>{
             255, 131, signed_grid_codes()[static_cast<std::size_t>(grid_index(-2.0f / 3.0f))]}));
  EXPECT_EQ(v, (std::vector<std::uint8_t>{255, 0, 255}));
  EXPECT_GT(v_absmax, 0.0f);
  EXPECT_LT(v_absmax, 2.94e-39f);
  EXPECT_GT(m_absmax, 2e-20f);
}

TEST(AdamW8Bit, NearestCodesStayWithinOneOfTheGridAndKeepTheSign) {
  const float* map = signed_dynamic_map().data();
  EXPECT_EQ(nearest_code_m(map, -1e-12f, 1.0f), 126);
  EXPECT_EQ(nearest_code_m(map, 1e-12f, 1.0f), 127);
  EXPECT_EQ(nearest_code_v(unsigned_dynamic_map().data(), 0.0f, 1.0f), 0);
  for (int i = -1000; i <= 1000; ++i) {
    const float x = static_cast<float>(i) / 1000.0f;
    const int nearest = nearest_code_m(map, x, 1.0f);
    const int grid = signed_grid_codes()[static_cast<std::size_t>(grid_index(x))];
    EXPECT_LE(std::abs(nearest - grid), i == 0 ? 4 : 1) << x;
  }
}

}  // namespace
}  // namespace medvqa::quant
