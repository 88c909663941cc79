// What the decoders of the single formats share. Internal to the image module.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "medvqa/image/decode.h"

namespace medvqa::image_detail {

using Bytes = std::span<const std::byte>;

// One line: the file, what was found, what was expected, what to do.
[[noreturn]] void fail_image(std::string_view name, std::string_view found,
                             std::string_view expected, std::string_view remedy);
[[noreturn]] void fail_damaged(std::string_view name, std::string_view format,
                               std::string_view reason);

// The number of RGB bytes of width x height, after holding it against the limits.
std::size_t checked_rgb_size(std::string_view name, std::int64_t width, std::int64_t height,
                             const DecodeLimits& limits);

// What a file says about its orientation, as Pillow collects it.
struct OrientationSources {
  std::string exif;  // TIFF structure, with or without "Exif\0\0" before it; empty: none
  std::string xmp;   // an XMP packet, read only if exif has no orientation
};

// EXIF orientation 1 to 8; 1 if there is none or it is not readable.
int orientation_of(const OrientationSources& sources);

// Turns the picture so that it stands upright.
Image upright(Image image, int orientation);

Image decode_jpeg(Bytes bytes, std::string_view name, const DecodeLimits& limits);
Image decode_png(Bytes bytes, std::string_view name, const DecodeLimits& limits);
Image decode_bmp(Bytes bytes, std::string_view name, const DecodeLimits& limits);

}  // namespace medvqa::image_detail
