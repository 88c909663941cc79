#include <fmt/format.h>

#include <limits>
#include <memory>

#include "src/image/decoders.h"
#include "src/image/stb_bmp.h"

namespace medvqa::image_detail {
namespace {

std::uint32_t little_endian(Bytes bytes, std::size_t offset, std::size_t count) {
  std::uint32_t value = 0;
  for (std::size_t i = count; i-- > 0;) {
    value = (value << 8) | static_cast<std::uint32_t>(bytes[offset + i]);
  }
  return value;
}

struct BmpHeader {
  std::int64_t pixel_offset = 0;
  std::int64_t width = 0;
  std::int64_t height = 0;
  std::int64_t bits = 0;
  std::uint32_t compression = 0;
};

BmpHeader read_header(Bytes bytes, std::string_view name) {
  constexpr std::size_t kSmallest = 26;
  constexpr std::uint32_t kCoreHeader = 12;
  if (bytes.size() < kSmallest) fail_damaged(name, "BMP", "the file ends in its header");
  BmpHeader header;
  header.pixel_offset = little_endian(bytes, 10, 4);
  if (little_endian(bytes, 14, 4) == kCoreHeader) {
    header.width = little_endian(bytes, 18, 2);
    header.height = little_endian(bytes, 20, 2);
    header.bits = little_endian(bytes, 24, 2);
    return header;
  }
  if (bytes.size() < 54) fail_damaged(name, "BMP", "the file ends in its header");
  header.width = static_cast<std::int32_t>(little_endian(bytes, 18, 4));
  // Negative heights mean rows from the top.
  header.height = std::abs(std::int64_t{static_cast<std::int32_t>(little_endian(bytes, 22, 4))});
  header.bits = little_endian(bytes, 28, 2);
  header.compression = little_endian(bytes, 30, 4);
  return header;
}

}  // namespace

Image decode_bmp(Bytes bytes, std::string_view name, const DecodeLimits& limits) {
  const BmpHeader header = read_header(bytes, name);
  const std::size_t bytes_needed = checked_rgb_size(name, header.width, header.height, limits);
  const bool known_bits = header.bits == 1 || header.bits == 4 || header.bits == 8 ||
                          header.bits == 24 || header.bits == 32;
  const bool is_plain = header.compression == 0 || (header.compression == 3 && header.bits == 32);
  if (!known_bits || !is_plain) {
    fail_image(name,
               fmt::format("a BMP of {} bits, compression {}", header.bits, header.compression),
               "1, 4, 8, 24 or 32 bits, uncompressed", "convert it, for example to PNG");
  }
  // stb_image reads zeros beyond the end, so the length is checked here.
  const std::int64_t stride = (header.width * header.bits + 31) / 32 * 4;
  if (header.pixel_offset + stride * header.height > static_cast<std::int64_t>(bytes.size())) {
    fail_damaged(name, "BMP", "fewer pixels than its header says");
  }
  if (bytes.size() > static_cast<std::size_t>(std::numeric_limits<int>::max())) {
    fail_damaged(name, "BMP", "larger than 2 GiB");
  }
  int width = 0;
  int height = 0;
  const std::unique_ptr<stbi_uc, void (*)(void*)> pixels(
      stbi_load_from_memory(reinterpret_cast<const stbi_uc*>(bytes.data()),
                            static_cast<int>(bytes.size()), &width, &height, nullptr, 3),
      stbi_image_free);
  if (!pixels || width != header.width || height != header.height) {
    fail_damaged(name, "BMP", pixels ? "contradicting sizes" : stbi_failure_reason());
  }
  Image image;
  image.width = width;
  image.height = height;
  image.rgb.assign(pixels.get(), pixels.get() + bytes_needed);
  return image;
}

}  // namespace medvqa::image_detail
