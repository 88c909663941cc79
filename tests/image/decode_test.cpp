// Decoding against Pillow's pixels (tests/fixtures/image/recipe.json says which Pillow), and what
// happens with files that are damaged, too large or of another kind.
#include "medvqa/image/decode.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "medvqa/core/error.h"
#include "tests/image/image_fixtures.h"

namespace medvqa {
namespace {

std::string message_of(std::span<const std::byte> bytes, const DecodeLimits& limits = {}) {
  try {
    decode_image(bytes, "x.img", limits);
  } catch (const UserError& error) {
    EXPECT_EQ(error.code(), ExitCode::data);
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    EXPECT_EQ(std::string(error.what()).rfind("x.img: ", 0), 0u);
    return error.what();
  }
  return "no error";
}

std::string message_of(std::string_view text) {
  return message_of(std::as_bytes(std::span(text.data(), text.size())));
}

TEST(Decode, EqualsPillow) {
  const auto recipe = image_recipe();
  ASSERT_GT(recipe["decoded"].size(), 40u);
  for (const auto& entry : recipe["decoded"]) {
    const std::string file = entry["file"];
    const Image image = load_image(image_fixture(file));
    EXPECT_EQ(image.width, entry["width"].get<int>()) << file;
    EXPECT_EQ(image.height, entry["height"].get<int>()) << file;
    EXPECT_EQ(image.rgb, read_bytes<std::uint8_t>(image_fixture(file + ".rgb"))) << file;
  }
}

TEST(Decode, EveryTruncationIsAnError) {
  for (const char* file :
       {"ycc420.jpg", "progressive.jpg", "rgb_interlaced.png", "palette4.png", "rgb.bmp"}) {
    const auto bytes = read_bytes<std::byte>(image_fixture(file));
    // A JPEG may lose its end marker and a few bits of padding before a pixel is missing.
    for (std::size_t keep = 0; keep + 12 < bytes.size(); ++keep) {
      EXPECT_NE(message_of(std::span(bytes).first(keep)), "no error") << file << " " << keep;
    }
  }
}

TEST(Decode, DamageNeverCrashes) {
  for (const char* file :
       {"ycc420.jpg", "progressive.jpg", "cmyk.jpg", "exif6.jpg", "rgb_interlaced.png",
        "palette4.png", "exif_text.png", "xmp.png", "palette.bmp"}) {
    const auto original = read_bytes<std::byte>(image_fixture(file));
    DecodeLimits limits;
    limits.max_pixels = 1 << 20;
    for (std::size_t i = 0; i < original.size(); ++i) {
      auto bytes = original;
      bytes[i] ^= std::byte{0x55};
      message_of(bytes, limits);
    }
  }
}

TEST(Decode, RefusesPicturesBeyondTheLimits) {
  DecodeLimits limits;
  limits.max_pixels = 100;
  for (const char* file : {"ycc420.jpg", "rgb8.png", "rgb.bmp"}) {
    const auto bytes = read_bytes<std::byte>(image_fixture(file));
    EXPECT_NE(message_of(bytes, limits).find("23 x 17"), std::string::npos) << file;
  }
  limits = {};
  limits.max_scans = 2;
  const auto progressive = read_bytes<std::byte>(image_fixture("progressive.jpg"));
  EXPECT_NE(message_of(progressive, limits).find("scans"), std::string::npos);
  limits = {};
  limits.max_bytes = 10;
  EXPECT_THROW(load_image(image_fixture("rgb8.png"), limits), UserError);
}

TEST(Decode, NamesUnsupportedTypes) {
  using namespace std::string_view_literals;
  EXPECT_NE(message_of("GIF89a"sv).find("a GIF"), std::string::npos);
  EXPECT_NE(message_of("II*\0\0\0\0\0"sv).find("a TIFF"), std::string::npos);
  EXPECT_NE(message_of("RIFF\0\0\0\0WEBPVP8 "sv).find("a WebP"), std::string::npos);
  EXPECT_NE(message_of(std::string(128, '\0') + "DICM").find("a DICOM"), std::string::npos);
  EXPECT_NE(message_of(""sv).find("an empty file"), std::string::npos);
  EXPECT_NE(message_of("hello"sv).find("68 65 6c 6c 6f"), std::string::npos);
}

TEST(Decode, RefusesWhatIsNotAFile) {
  EXPECT_THROW(load_image("/nonexistent/picture.png"), UserError);
  EXPECT_THROW(load_image(std::filesystem::temp_directory_path()), UserError);
}

}  // namespace
}  // namespace medvqa
