// The size of a picture without its pixels.
#pragma once

#include <filesystem>

#include "medvqa/image/decode.h"
#include "medvqa/image/patches.h"

namespace medvqa {

// The size load_image gives, EXIF orientation applied. JPEG and PNG are read up to their pixels, or
// decoded where the header does not settle it; other kinds are decoded. Errors: as load_image, but
// damage to the pixels of a JPEG goes unnoticed.
ImageSize image_size(const std::filesystem::path& path, const DecodeLimits& limits = {});

}  // namespace medvqa
