#include <gtest/gtest.h>

#include <cmath>

#include "medvqa/models/frequencies.h"
#include "medvqa/models/mrope.h"
#include "medvqa/models/qwen2_vl/vision.h"

namespace medvqa::models {
namespace {

using Rows = std::vector<std::vector<std::int32_t>>;
constexpr std::int32_t kImage = 151655;

PackedInput golden_input() {
  PackedInput in;
  in.ids = {1, 2, 151652, kImage, kImage, kImage, kImage, kImage, kImage, 151653,
            3, 4, 151652, kImage, kImage, kImage, kImage, 151653, 5};
  in.cu_seqlens = {0, 19};
  in.grids = {{1, 4, 6}, {1, 4, 4}};
  return in;
}

// From transformers' get_rope_index (reference-models.md B3).
const Rows kGolden{{0, 1, 2, 3, 3, 3, 3, 3, 3, 6, 7, 8, 9, 10, 10, 10, 10, 12, 13},
                   {0, 1, 2, 3, 3, 3, 4, 4, 4, 6, 7, 8, 9, 10, 10, 11, 11, 12, 13},
                   {0, 1, 2, 3, 4, 5, 3, 4, 5, 6, 7, 8, 9, 10, 11, 10, 11, 12, 13}};

TEST(MRope, PositionsOfTransformers) {
  EXPECT_EQ(mrope_positions(golden_input(), kImage, 2), kGolden);
}

TEST(MRope, EverySampleBeginsAtZero) {
  PackedInput in = golden_input();
  const PackedInput one = in;
  in.ids.push_back(7);  // a second sample of one token between two others
  in.ids.insert(in.ids.end(), one.ids.begin(), one.ids.end());
  in.cu_seqlens = {0, 19, 20, 39};
  in.grids.insert(in.grids.end(), one.grids.begin(), one.grids.end());
  const Rows rows = mrope_positions(in, kImage, 2);
  for (std::size_t axis = 0; axis < 3; ++axis) {
    std::vector<std::int32_t> expected = kGolden[axis];
    expected.push_back(0);
    expected.insert(expected.end(), kGolden[axis].begin(), kGolden[axis].end());
    EXPECT_EQ(rows[axis], expected);
  }
}

TEST(MRope, FramesAdvanceTheFirstAxis) {
  PackedInput in;
  in.ids = {9, kImage, kImage, kImage, kImage, kImage, kImage, 8};
  in.cu_seqlens = {0, 8};
  in.grids = {{3, 2, 4}};
  const Rows rows = mrope_positions(in, kImage, 2);
  EXPECT_EQ(rows[0], (std::vector<std::int32_t>{0, 1, 1, 2, 2, 3, 3, 4}));
  EXPECT_EQ(rows[1], (std::vector<std::int32_t>{0, 1, 1, 1, 1, 1, 1, 4}));
  EXPECT_EQ(rows[2], (std::vector<std::int32_t>{0, 1, 2, 1, 2, 1, 2, 4}));
}

TEST(MRope, RefusesPlaceholdersThatDoNotMatch) {
  const auto refused = [](auto change) {
    PackedInput in = golden_input();
    change(in);
    try {
      mrope_positions(in, kImage, 2);
      FAIL();
    } catch (const UserError& e) {
      EXPECT_EQ(e.code(), ExitCode::data);
    }
  };
  refused([](PackedInput& in) { in.grids.pop_back(); });
  refused([](PackedInput& in) { in.grids.push_back({1, 2, 2}); });
  refused([](PackedInput& in) { in.ids[5] = 3; });
  refused([](PackedInput& in) { in.ids[16] = 3; });
  refused([](PackedInput& in) { in.grids[1].h = 6; });
  refused([](PackedInput& in) { in.cu_seqlens = {0, 15, 19}; });  // an image over two samples
}

TEST(PatchPositions, MergeBlockOrderOfTransformers) {
  const Rows axes = qwen2_vl::patch_positions({{1, 4, 6}}, 2);
  const Rows expected{{0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 3, 3, 2, 2, 3, 3, 2, 2, 3, 3},
                      {0, 1, 0, 1, 2, 3, 2, 3, 4, 5, 4, 5, 0, 1, 0, 1, 2, 3, 2, 3, 4, 5, 4, 5}};
  EXPECT_EQ(axes, expected);
  const Rows twice = qwen2_vl::patch_positions({{2, 4, 6}, {1, 2, 2}}, 2);
  ASSERT_EQ(twice[0].size(), 52u);
  for (std::size_t i = 0; i < 24; ++i) {
    EXPECT_EQ(twice[1][i], twice[1][24 + i]);  // every frame alike
  }
  EXPECT_EQ(twice[0][51], 1);
  EXPECT_EQ(twice[0][48], 0);
}

float ulp(float x) {
  return std::nextafter(x, 2.0f) - x;
}

// 1.0 / theta ** (arange(0, dim, 2).float() / dim) in PyTorch 2.11.
TEST(InverseFrequencies, OfTorch) {
  const auto check = [](double theta, std::int64_t dim, const std::vector<float>& expected) {
    const std::vector<float> f = inverse_frequencies(theta, dim);
    ASSERT_EQ(f.size(), static_cast<std::size_t>(dim / 2));
    const std::vector<std::size_t> places{0, 1, 2, 7, f.size() - 2, f.size() - 1};
    for (std::size_t i = 0; i < places.size(); ++i) {
      EXPECT_LE(std::fabs(f[places[i]] - expected[i]), ulp(expected[i])) << places[i];
    }
  };
  check(1e6, 128,
        {0x1p+0f, 0x1.9c975ap-1f, 0x1.4c7bcp-1f, 0x1.c3f06ap-3f, 0x1.9d5ef2p-20f, 0x1.4d1c98p-20f});
  check(1e4, 40,
        {0x1p+0f, 0x1.430cd6p-1f, 0x1.97a968p-2f, 0x1.462122p-5f, 0x1.0763f4p-12f, 0x1.4c605p-13f});
}

}  // namespace
}  // namespace medvqa::models
