// Pictures to the patches of Qwen2-VL's vision tower, bit for bit what transformers 5.17.0's
// Qwen2VLImageProcessorPil gives (image_processing_pil_qwen2_vl.py).
#pragma once

#include <cstdint>
#include <vector>

#include "medvqa/image/decode.h"
#include "medvqa/image/patches.h"
#include "medvqa/image/resize.h"

namespace medvqa {

// preprocessor_config.json; the defaults are those of Qwen2-VL's published folders.
struct Qwen2VlImageConfig {
  std::int64_t min_pixels = 56 * 56;
  std::int64_t max_pixels = 28 * 28 * 16384;
  int patch_size = 14;
  int temporal_patch_size = 2;
  int merge_size = 2;
  PixelScale scale;
  ResampleFilter resample = ResampleFilter::bicubic;
};

// The size nearest to height x width whose sides are multiples of factor (rounded half to even)
// and whose area lies in [min_pixels, max_pixels], the sides' ratio kept as well as that allows.
// Errors: UserError(data) if one side is more than 200 times the other, or nothing fits.
ImageSize smart_resize(int height, int width, int factor, std::int64_t min_pixels,
                       std::int64_t max_pixels);

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
