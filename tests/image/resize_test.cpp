#include "medvqa/image/resize.h"

#include <gtest/gtest.h>

#include <string>

#include "medvqa/core/error.h"
#include "tests/image/image_fixtures.h"

namespace medvqa {
namespace {

ResampleFilter filter_of(const std::string& name) {
  if (name == "bilinear") return ResampleFilter::bilinear;
  return name == "bicubic" ? ResampleFilter::bicubic : ResampleFilter::lanczos;
}

TEST(Resize, EqualsPillow) {
  const auto recipe = image_recipe();
  const Image source = load_image(image_fixture("rgb8.png"));
  ASSERT_GE(recipe["resized"].size(), 21u);
  for (const auto& entry : recipe["resized"]) {
    const std::string file = entry["file"];
    const Image resized =
        resize(source, entry["width"], entry["height"], filter_of(entry["filter"]));
    EXPECT_EQ(resized.rgb, read_bytes<std::uint8_t>(image_fixture(file))) << file;
  }
}

TEST(Resize, KeepsAConstantPicture) {
  Image image{40, 30, std::vector<std::uint8_t>(40 * 30 * 3, 201)};
  for (const auto filter :
       {ResampleFilter::bilinear, ResampleFilter::bicubic, ResampleFilter::lanczos}) {
    for (const int side : {1, 7, 30, 41, 300}) {
      const Image resized = resize(image, side, 301 - side, filter);
      for (const std::uint8_t v : resized.rgb) ASSERT_EQ(v, 201);
    }
  }
}

TEST(Resize, SameSizeIsACopy) {
  const Image source = load_image(image_fixture("rgb8.png"));
  EXPECT_EQ(resize(source, source.width, source.height, ResampleFilter::lanczos).rgb, source.rgb);
}

TEST(Resize, ChecksItsSizes) {
  const Image source = load_image(image_fixture("rgb8.png"));
  EXPECT_THROW(resize(source, 0, 4, ResampleFilter::bicubic), InternalError);
  EXPECT_THROW(resize(Image{}, 4, 4, ResampleFilter::bicubic), InternalError);
}

}  // namespace
}  // namespace medvqa
