#include "medvqa/models/mllama/layout.h"

#include <gtest/gtest.h>

#include <numeric>

#include "tests/models/tiny_mllama.h"

namespace medvqa::models::testing_models {
namespace {

using mllama::CrossLayout;
using mllama::ImageRows;
using mllama::RowParts;
using Ranges = std::vector<std::array<std::int64_t, 4>>;

const mllama::Config& config() {
  static const mllama::Config c = mllama::read_config(tiny_mllama_config());
  return c;
}

Ranges ranges(const std::vector<RowParts>& parts) {
  Ranges out;
  for (const RowParts& p : parts) out.push_back({p.q.begin, p.q.end, p.k.begin, p.k.end});
  return out;
}

CrossLayout layout_of(const Batch& b) {
  return cross_layout(b.input, image_rows(b.input.grids, config().vision), config());
}

// 5 tokens and 3 of padding a tile, 4 slots: 20 tokens and 32 rows an image.
TEST(MllamaLayout, ImagesAndTheVisionMask) {
  EXPECT_EQ(mllama::rows_of_an_image(config().vision), 32);
  const auto images = image_rows({{1, 2, 4}, {1, 4, 4}, {1, 6, 2}}, config().vision);
  ASSERT_EQ(images.size(), 3u);
  EXPECT_EQ(images[0].ratio, 2);
  EXPECT_EQ(images[1].ratio, 6);
  EXPECT_EQ(images[2].ratio, 7);
  EXPECT_EQ(images[2].begin, 64);
  EXPECT_EQ(images[2].tiles, 3);
  EXPECT_EQ(ranges(vision_parts(images, config().vision)), (Ranges{{0, 10, 0, 32},
                                                                   {10, 32, 0, 10},
                                                                   {32, 52, 32, 64},
                                                                   {52, 64, 32, 52},
                                                                   {64, 79, 64, 96},
                                                                   {79, 96, 64, 79}}));
}

TEST(MllamaLayout, OnePicture) {
  const CrossLayout layout = layout_of(one_picture());
  EXPECT_EQ(ranges(layout.parts), (Ranges{{0, 2, 0, 20}, {2, 6, 0, 10}}));
  EXPECT_EQ(layout.feed_forward, (std::vector<float>{0, 0, 1, 1, 1, 1}));
  std::vector<std::int32_t> rows(20);
  std::iota(rows.begin(), rows.end(), 0);
  EXPECT_EQ(layout.key_rows, rows);
}

TEST(MllamaLayout, TwoPicturesApartAndInARun) {
  // Keys: 5 of the first picture, 20 of the second, then 15 slots unused by the first.
  const CrossLayout apart = layout_of(two_pictures());
  EXPECT_EQ(ranges(apart.parts), (Ranges{{0, 1, 0, 40}, {1, 4, 0, 5}, {4, 7, 5, 25}}));
  EXPECT_EQ(apart.key_rows[5], 32);
  EXPECT_EQ(apart.key_rows[25], 5);
  EXPECT_EQ(apart.key_rows.size(), 40u);
  // The second placeholder and what follows see both.
  const CrossLayout run = layout_of(run_of_pictures());
  EXPECT_EQ(ranges(run.parts), (Ranges{{0, 1, 0, 15}, {1, 6, 0, 20}}));
}

TEST(MllamaLayout, SamplesKeepToThemselves) {
  const CrossLayout layout = layout_of(packed(packed(no_picture(), one_picture()), two_pictures()));
  EXPECT_EQ(
      ranges(layout.parts),
      (Ranges{
          {4, 6, 0, 20}, {6, 10, 0, 10}, {10, 11, 20, 60}, {11, 14, 20, 25}, {14, 17, 25, 45}}));
  EXPECT_EQ(std::accumulate(layout.feed_forward.begin(), layout.feed_forward.end(), 0.0f), 10.0f);
}

}  // namespace
}  // namespace medvqa::models::testing_models
