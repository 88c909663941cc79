// Pictures to the patches of Qwen2-VL's vision tower, bit for bit what transformers 5.17.0's
// Qwen2VLImageProcessorPil gives (image_processing_pil_qwen2_vl.py).
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "medvqa/image/decode.h"
#include "medvqa/image/resize.h"

namespace medvqa {

// preprocessor_config.json; the defaults are those of Qwen2-VL's published folders.
struct Qwen2VlImageConfig {
  std::int64_t min_pixels = 56 * 56;
  std::int64_t max_pixels = 28 * 28 * 16384;
  int patch_size = 14;
  int temporal_patch_size = 2;
  int merge_size = 2;
  double rescale_factor = 1.0 / 255.0;
  std::array<float, 3> mean{0.48145466f, 0.4578275f, 0.40821073f};
  std::array<float, 3> std{0.26862954f, 0.26130258f, 0.27577711f};
  ResampleFilter resample = ResampleFilter::bicubic;
};

struct ImageSize {
  int height = 0;
  int width = 0;
  bool operator==(const ImageSize&) const = default;
};

// The size nearest to height x width whose sides are multiples of factor (rounded half to even)
// and whose area lies in [min_pixels, max_pixels], the sides' ratio kept as well as that allows.
// Errors: UserError(data) if one side is more than 200 times the other, or nothing fits.
ImageSize smart_resize(int height, int width, int factor, std::int64_t min_pixels,
                       std::int64_t max_pixels);

// Patches along time, height and width; a picture has one step of time.
struct PatchGrid {
  std::int64_t t = 1;
  std::int64_t h = 0;
  std::int64_t w = 0;
  std::int64_t patches() const { return t * h * w; }
};

// The grid a picture of this size will have, without looking at pixels. Errors: as smart_resize.
PatchGrid qwen2_vl_grid(int height, int width, const Qwen2VlImageConfig& config);

// values is f32 [P, 3 * temporal_patch_size * patch_size^2], P = grid_t * grid_h * grid_w: rows in
// the order of merge blocks (block row, block column, row in block, column in block), columns
// [channel, time, row, column]. value = (f32(pixel * rescale_factor) - mean) / std in f32.
struct ImagePatches {
  std::vector<float> values;
  std::int64_t grid_t = 0;
  std::int64_t grid_h = 0;
  std::int64_t grid_w = 0;
};

ImagePatches qwen2_vl_patches(const Image& image, const Qwen2VlImageConfig& config);

}  // namespace medvqa
