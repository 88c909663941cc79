// Image files to RGB pixels, equal to Pillow 13.0.0's
// ImageOps.exif_transpose(Image.open(f)).convert("RGB") byte for byte: JPEG and PNG of every
// kind those two formats have, with one exception: 16-bit grey PNG is scaled, round(v / 257),
// where Pillow clips it at 255. BMP is read for convenience: 1, 4, 8, 24 and 32 bits, uncompressed.
//
// Alpha and transparency are dropped, never blended. Colour profiles and gamma are not applied.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>
#include <vector>

namespace medvqa {

// Pixels of one picture: rgb holds height x width x 3 bytes, rows from the top, interleaved.
struct Image {
  int width = 0;
  int height = 0;
  std::vector<std::uint8_t> rgb;
};

// What a file may ask for before anything of its size is allocated.
struct DecodeLimits {
  std::int64_t max_pixels = 100'000'000;
  int max_scans = 1'000;             // of a progressive JPEG
  std::int64_t max_bytes = 1 << 30;  // of the file itself
};

// Decodes the bytes of an image file; `name` stands for the file in messages.
// Errors: UserError(data) for a type that is not supported (named by its first bytes), for damaged
// or truncated data, and for a picture beyond the limits.
Image decode_image(std::span<const std::byte> bytes, std::string_view name,
                   const DecodeLimits& limits = {});

// Reads and decodes a file. Errors: as decode_image, and UserError(data) if it cannot be read.
Image load_image(const std::filesystem::path& path, const DecodeLimits& limits = {});

}  // namespace medvqa
