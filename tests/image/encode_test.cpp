#include "medvqa/image/encode.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "medvqa/core/error.h"

namespace medvqa {
namespace {

Image ramp(int width, int height, bool is_grey) {
  Image image{width, height, {}};
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      for (int c = 0; c < 3; ++c) {
        image.rgb.push_back(static_cast<std::uint8_t>(40 + x * 5 + y * 3 + (is_grey ? 0 : c * 20)));
      }
    }
  }
  return image;
}

class Encoding : public ::testing::TestWithParam<bool> {};

TEST_P(Encoding, PngGivesEveryPixelBack) {
  const Image image = ramp(13, 9, GetParam());
  const Image again = decode_image(encode_png(image), "ramp.png");
  EXPECT_EQ(again.width, 13);
  EXPECT_EQ(again.height, 9);
  EXPECT_EQ(again.rgb, image.rgb);
}

TEST_P(Encoding, JpegIsNear) {
  const Image image = ramp(24, 17, GetParam());
  const Image again = decode_image(encode_jpeg(image, 95), "ramp.jpg");
  ASSERT_EQ(again.rgb.size(), image.rgb.size());
  for (std::size_t i = 0; i < image.rgb.size(); ++i) {
    EXPECT_LE(std::abs(int{again.rgb[i]} - int{image.rgb[i]}), 8) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(GreyAndColour, Encoding, ::testing::Bool());

TEST(EncodingImages, GreyTakesOneChannel) {
  // The colour type is byte 25 of a PNG: 0 grey, 2 RGB.
  EXPECT_EQ(encode_png(ramp(4, 4, true)).at(25), std::byte{0});
  EXPECT_EQ(encode_png(ramp(4, 4, false)).at(25), std::byte{2});
}

TEST(EncodingImages, ChoosesByFormat) {
  const Image image = ramp(8, 8, true);
  EXPECT_EQ(encode_image(image, ImageFormat::png), encode_png(image));
  EXPECT_EQ(encode_image(image, ImageFormat::jpeg), encode_jpeg(image));
}

TEST(EncodingImages, NeedsAllItsPixels) {
  Image image = ramp(4, 4, true);
  image.rgb.pop_back();
  EXPECT_THROW(encode_png(image), InternalError);
  EXPECT_THROW(encode_jpeg({0, 4, {}}), InternalError);
}

}  // namespace
}  // namespace medvqa
