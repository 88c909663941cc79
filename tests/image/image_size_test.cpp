#include "medvqa/image/image_size.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "medvqa/core/error.h"
#include "tests/image/image_fixtures.h"

namespace medvqa {
namespace {

namespace fs = std::filesystem;

TEST(ImageSizeOfFile, IsThatOfTheDecodedPicture) {
  int checked = 0;
  for (const auto& entry : fs::directory_iterator(image_fixture(""))) {
    const std::string extension = entry.path().extension();
    if (extension != ".jpg" && extension != ".png" && extension != ".bmp") continue;
    const Image image = load_image(entry.path());
    EXPECT_EQ(image_size(entry.path()), (ImageSize{image.height, image.width})) << entry.path();
    ++checked;
  }
  EXPECT_GT(checked, 20);
}

TEST(ImageSizeOfFile, FailsAsTheDecoderDoes) {
  const fs::path file =
      fs::temp_directory_path() / ("medvqa-image-size-" + std::to_string(::getpid()) + ".jpg");
  const auto fails = [&](const std::vector<char>& bytes) {
    std::ofstream(file, std::ios::binary)
        .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    try {
      image_size(file);
      ADD_FAILURE() << "took a file of " << bytes.size() << " bytes";
    } catch (const UserError& error) {
      EXPECT_EQ(error.code(), ExitCode::data);
      EXPECT_NE(std::string(error.what()).find(file.filename().string()), std::string::npos);
    }
  };
  fails({});
  fails({'G', 'I', 'F', '8'});
  for (const char* name : {"exif6.jpg", "grey8.png"}) {
    const auto whole = read_bytes<char>(image_fixture(name));
    for (std::size_t length = 0; length < 30; ++length) {
      fails({whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length)});
    }
  }
  const auto png = read_bytes<char>(image_fixture("grey8.png"));
  fails({png.begin(), png.end() - 14});
  fs::remove(file);
  EXPECT_THROW(image_size(file), UserError);
}

TEST(ImageSizeOfFile, HoldsTheLimits) {
  DecodeLimits limits;
  limits.max_pixels = 4;
  EXPECT_THROW(image_size(image_fixture("exif1.jpg"), limits), UserError);
  EXPECT_THROW(image_size(image_fixture("grey8.png"), limits), UserError);
}

}  // namespace
}  // namespace medvqa
