// What image processors share: sizes, grids of patches, and the arithmetic of pixel values.
#pragma once

#include <array>
#include <cstdint>

namespace medvqa {

struct ImageSize {
  int height = 0;
  int width = 0;
  bool operator==(const ImageSize&) const = default;
};

// Patches along time, height and width; a picture has one step of time.
struct PatchGrid {
  std::int64_t t = 1;
  std::int64_t h = 0;
  std::int64_t w = 0;
  std::int64_t patches() const { return t * h * w; }
};

// value = (f32(pixel * rescale_factor) - mean) / std in f32, by channel. The defaults are CLIP's.
struct PixelScale {
  double rescale_factor = 1.0 / 255.0;
  std::array<float, 3> mean{0.48145466f, 0.4578275f, 0.40821073f};
  std::array<float, 3> std{0.26862954f, 0.26130258f, 0.27577711f};
};

// What every byte value becomes, per channel.
using ValueTable = std::array<std::array<float, 256>, 3>;
ValueTable pixel_values(const PixelScale& scale);

}  // namespace medvqa
