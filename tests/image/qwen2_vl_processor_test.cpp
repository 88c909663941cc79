#include "medvqa/image/qwen2_vl_processor.h"

#include <gtest/gtest.h>

#include <cstring>

#include "medvqa/core/error.h"
#include "tests/image/image_fixtures.h"

namespace medvqa {
namespace {

constexpr std::int64_t kMin = 3136;
constexpr std::int64_t kMax = 12845056;

TEST(SmartResize, KnownSizes) {
  EXPECT_EQ(smart_resize(512, 512, 28, kMin, kMax), (ImageSize{504, 504}));
  EXPECT_EQ(smart_resize(480, 640, 28, kMin, kMax), (ImageSize{476, 644}));
  EXPECT_EQ(smart_resize(768, 1024, 28, kMin, kMax), (ImageSize{756, 1036}));
  // Halves go to the even multiple: 98 / 28 = 3.5, 70 / 28 = 2.5, 42 / 28 = 1.5.
  EXPECT_EQ(smart_resize(98, 70, 28, kMin, kMax), (ImageSize{112, 56}));
  EXPECT_EQ(smart_resize(70, 42, 28, kMin, kMax), (ImageSize{56, 56}));
  EXPECT_EQ(smart_resize(1414, 1000, 28, kMin, kMax), (ImageSize{1400, 1008}));
  EXPECT_EQ(smart_resize(1414, 1000, 28, kMin, 1003520), (ImageSize{1176, 840}));
  EXPECT_EQ(smart_resize(30, 50, 28, kMin, kMax), (ImageSize{56, 84}));
}

TEST(SmartResize, RefusesStrips) {
  EXPECT_NO_THROW(smart_resize(2, 400, 28, kMin, kMax));
  EXPECT_THROW(smart_resize(2, 401, 28, kMin, kMax), UserError);
  EXPECT_THROW(smart_resize(4, 4, 28, 0, kMax), UserError);
}

TEST(Qwen2VlPatches, EqualsTheReference) {
  const auto recipe = image_recipe()["patches"];
  Qwen2VlImageConfig config;
  config.max_pixels = 1003520;
  const Image image = load_image(image_fixture("rgb8.png"));
  const ImagePatches patches = qwen2_vl_patches(image, config);
  EXPECT_EQ(patches.grid_t, recipe["grid"][0].get<std::int64_t>());
  EXPECT_EQ(patches.grid_h, recipe["grid"][1].get<std::int64_t>());
  EXPECT_EQ(patches.grid_w, recipe["grid"][2].get<std::int64_t>());
  const auto expected = read_bytes<float>(image_fixture(recipe["file"]));
  ASSERT_EQ(patches.values.size(), expected.size());
  EXPECT_EQ(std::memcmp(patches.values.data(), expected.data(), expected.size() * 4), 0);
}

TEST(Qwen2VlPatches, GridNeedsNoPixels) {
  const PatchGrid grid = qwen2_vl_grid(480, 640, {});
  EXPECT_EQ(grid.t, 1);
  EXPECT_EQ(grid.h, 34);
  EXPECT_EQ(grid.w, 46);
  EXPECT_EQ(grid.patches(), 34 * 46);
}

}  // namespace
}  // namespace medvqa
