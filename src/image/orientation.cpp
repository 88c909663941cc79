#include <array>
#include <cstring>
#include <optional>
#include <utility>

#include "src/image/decoders.h"

namespace medvqa::image_detail {
namespace {

// Reads numbers of a TIFF structure in its own byte order; out of range is 'no value'.
class TiffReader {
 public:
  TiffReader(std::string_view data, bool big_endian) : data_(data), big_endian_(big_endian) {}

  std::optional<std::uint32_t> number(std::size_t offset, std::size_t bytes) const {
    if (offset > data_.size() || data_.size() - offset < bytes) return std::nullopt;
    std::uint32_t value = 0;
    for (std::size_t i = 0; i < bytes; ++i) {
      const std::size_t at = offset + (big_endian_ ? i : bytes - 1 - i);
      value = (value << 8) | static_cast<std::uint8_t>(data_[at]);
    }
    return value;
  }

 private:
  std::string_view data_;
  bool big_endian_;
};

constexpr std::size_t kEntryBytes = 12;
constexpr std::uint32_t kOrientationTag = 0x0112;

// Bytes of one value of the integer types Pillow would compare with an orientation.
std::size_t integer_bytes(std::uint32_t type) {
  if (type == 3 || type == 8) return 2;
  if (type == 4 || type == 9) return 4;
  return 0;
}

std::optional<int> exif_orientation(std::string_view exif) {
  constexpr std::string_view prefix("Exif\0\0", 6);
  for (int i = 0; i < 2 && exif.substr(0, prefix.size()) == prefix; ++i) {
    exif.remove_prefix(prefix.size());
  }
  if (exif.size() < 8) return std::nullopt;
  const bool big_endian = exif.substr(0, 4) == std::string_view("MM\0*", 4);
  if (!big_endian && exif.substr(0, 4) != std::string_view("II*\0", 4)) return std::nullopt;
  const TiffReader tiff(exif, big_endian);
  const std::size_t directory = tiff.number(4, 4).value_or(0);
  const std::uint32_t entries = tiff.number(directory, 2).value_or(0);
  std::optional<int> found;
  for (std::uint32_t i = 0; i < entries; ++i) {
    const std::size_t entry = directory + 2 + i * kEntryBytes;
    const auto tag = tiff.number(entry, 2);
    const auto type = tiff.number(entry + 2, 2);
    const auto count = tiff.number(entry + 4, 4);
    if (!tag || !type || !count) break;
    if (*tag != kOrientationTag) continue;
    const std::size_t bytes = integer_bytes(*type);
    const auto value = bytes == 0 || *count != 1 ? std::nullopt : tiff.number(entry + 8, bytes);
    found = value && *value <= 8 ? static_cast<int>(*value) : 0;
  }
  return found;
}

// The first tiff:Orientation="N" or <tiff:Orientation>N of the packet.
std::optional<int> xmp_orientation(std::string_view xmp) {
  constexpr std::string_view key = "tiff:Orientation";
  for (std::size_t at = xmp.find(key); at != std::string_view::npos; at = xmp.find(key, at + 1)) {
    std::string_view rest = xmp.substr(at + key.size());
    if (rest.substr(0, 2) == "=\"") {
      rest.remove_prefix(2);
    } else if (rest.substr(0, 1) == ">") {
      rest.remove_prefix(1);
    } else {
      continue;
    }
    if (!rest.empty() && rest[0] >= '0' && rest[0] <= '9') return rest[0] - '0';
  }
  return std::nullopt;
}

}  // namespace

int orientation_of(const OrientationSources& sources) {
  std::optional<int> value = exif_orientation(sources.exif);
  if (!value) value = xmp_orientation(sources.xmp);
  return value && *value >= 1 && *value <= 8 ? *value : 1;
}

Image upright(Image image, int orientation) {
  if (orientation <= 1) return image;
  const bool swaps_axes = orientation >= 5;
  const bool from_right =
      orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool from_bottom =
      orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  Image turned;
  turned.width = swaps_axes ? image.height : image.width;
  turned.height = swaps_axes ? image.width : image.height;
  turned.rgb.resize(image.rgb.size());
  std::uint8_t* out = turned.rgb.data();
  for (int y = 0; y < turned.height; ++y) {
    for (int x = 0; x < turned.width; ++x) {
      int column = swaps_axes ? y : x;
      int row = swaps_axes ? x : y;
      if (from_right) column = image.width - 1 - column;
      if (from_bottom) row = image.height - 1 - row;
      const auto pixel = static_cast<std::size_t>(row) * static_cast<std::size_t>(image.width) +
                         static_cast<std::size_t>(column);
      std::memcpy(out, image.rgb.data() + pixel * 3, 3);
      out += 3;
    }
  }
  return turned;
}

}  // namespace medvqa::image_detail
