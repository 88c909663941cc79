#include "medvqa/image/mllama_processor.h"

#include <gtest/gtest.h>

#include <cstring>

#include "tests/image/image_fixtures.h"

namespace medvqa {
namespace {

struct Golden {
  int width, height, canvas_height, canvas_width, new_height, new_width;
};

// Of transformers' own functions, tiles of 560 pixels.
TEST(MllamaCanvas, KnownSizes) {
  const std::vector<Golden> golden{
      {560, 560, 560, 560, 560, 560},      {512, 512, 560, 560, 560, 560},
      {224, 224, 560, 560, 560, 560},      {640, 480, 560, 1120, 480, 640},
      {480, 640, 1120, 560, 640, 480},     {1024, 768, 1120, 1120, 768, 1024},
      {768, 1024, 1120, 1120, 1024, 768},  {1120, 560, 560, 1120, 560, 1120},
      {1121, 560, 560, 1680, 560, 1121},   {2000, 500, 560, 2240, 500, 2000},
      {500, 2000, 2240, 560, 2000, 500},   {1680, 560, 560, 1680, 560, 1680},
      {2240, 560, 560, 2240, 560, 2240},   {300, 1200, 1680, 560, 1200, 300},
      {2828, 2320, 1120, 1120, 918, 1120}, {100, 30, 560, 560, 168, 560},
      {3000, 40, 560, 2240, 29, 2240},     {5000, 3, 560, 2240, 1, 2240},
      {563, 559, 560, 1120, 559, 563},     {1500, 1500, 1120, 1120, 1120, 1120},
      {800, 600, 1120, 1120, 600, 800}};
  for (const Golden& g : golden) {
    const TileCanvas c = mllama_canvas(g.height, g.width, {});
    EXPECT_EQ(c.tiles_high * 560, g.canvas_height) << g.width << " x " << g.height;
    EXPECT_EQ(c.tiles_wide * 560, g.canvas_width) << g.width << " x " << g.height;
    EXPECT_EQ(c.resized, (ImageSize{g.new_height, g.new_width})) << g.width << " x " << g.height;
    const PatchGrid grid = mllama_grid(g.height, g.width, {});
    EXPECT_EQ(grid.h, c.tiles_high * 40);
    EXPECT_EQ(grid.w, c.tiles_wide * 40);
  }
}

TEST(MllamaCanvas, FewerTiles) {
  MllamaImageConfig config;
  config.max_tiles = 1;
  EXPECT_EQ(mllama_canvas(500, 2000, config).resized, (ImageSize{140, 560}));
  config.max_tiles = 2;
  EXPECT_EQ(mllama_canvas(500, 2000, config).tiles_wide, 2);
}

TEST(MllamaPatches, EqualTheReference) {
  MllamaImageConfig config;
  config.tile_size = 16;
  config.patch_size = 4;
  const nlohmann::json recipe = image_recipe();  // a temporary would not outlive its element
  for (const auto& made : recipe["tiles"]) {
    Image image;
    image.width = made["width"];
    image.height = made["height"];
    image.rgb = read_bytes<std::uint8_t>(image_fixture(made["source"]));
    const std::vector<float> patches = mllama_patches(image, config);
    const std::vector<float> pixels = mllama_pixels(patches, config);
    const auto expected = read_bytes<float>(image_fixture(made["file"]));
    ASSERT_EQ(pixels.size(), expected.size()) << made["file"];
    EXPECT_EQ(std::memcmp(pixels.data(), expected.data(), expected.size() * 4), 0) << made["file"];
    EXPECT_EQ(mllama_grid(image.height, image.width, config).patches(),
              made["tiles"].get<std::int64_t>() * 16);
    // Rows are patches: the first holds the first four pixels of each channel's first four rows.
    EXPECT_EQ(patches[0], expected[0]);
    EXPECT_EQ(patches[4], expected[16]);
    EXPECT_EQ(patches[16], expected[256]);
    EXPECT_EQ(patches[48], expected[4]);
  }
}

}  // namespace
}  // namespace medvqa
