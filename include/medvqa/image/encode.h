// Pixels to image files. A picture whose three channels are equal is written as grey.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "medvqa/image/decode.h"

namespace medvqa {

enum class ImageFormat : std::uint8_t { png, jpeg };

// 8 bits a channel, without metadata: the same pixels give the same bytes with the same libpng and
// zlib. decode_image gives the picture back.
std::vector<std::byte> encode_png(const Image& image);

// Baseline, no chroma subsampling; quality from 1 to 100.
std::vector<std::byte> encode_jpeg(const Image& image, int quality = 92);

std::vector<std::byte> encode_image(const Image& image, ImageFormat format);

}  // namespace medvqa
