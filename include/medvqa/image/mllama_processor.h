// Pictures to the tiles of mllama's vision tower, bit for bit what transformers 5.17.0's
// MllamaImageProcessorPil gives (image_processing_pil_mllama.py).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "medvqa/image/decode.h"
#include "medvqa/image/patches.h"
#include "medvqa/image/resize.h"

namespace medvqa {

// preprocessor_config.json, and the model's patch size; the defaults are those of the published
// instruction-tuned folders.
struct MllamaImageConfig {
  int tile_size = 560;  // pixels a side
  int max_tiles = 4;
  int patch_size = 14;
  PixelScale scale;
  ResampleFilter resample = ResampleFilter::bilinear;

  std::int64_t patches_a_side() const { return tile_size / patch_size; }
  std::int64_t patch_columns() const { return std::int64_t{3} * patch_size * patch_size; }
};

// The canvas a picture is laid on: whole tiles, of which the resized picture fills the upper left.
struct TileCanvas {
  int tiles_high = 1;
  int tiles_wide = 1;
  ImageSize resized;
};

// Among the canvases of at most max_tiles tiles the one the picture fills with the least
// enlargement, or, if it is larger than all, with the least reduction; of several the smallest.
// The picture is enlarged no further than to the length of one tile.
TileCanvas mllama_canvas(int height, int width, const MllamaImageConfig& config);

// The canvas in patches: h = tiles_high * patches_a_side.
PatchGrid mllama_grid(int height, int width, const MllamaImageConfig& config);

// f32 [P, 3 * patch_size^2]: tile by tile (rows of tiles from the top), the patches of a tile row
// by row, columns [channel, row, column]. The rest of the canvas is black before normalisation.
std::vector<float> mllama_patches(const Image& image, const MllamaImageConfig& config);

// The same values as pixels [tiles, 3, tile_size, tile_size], the reference's own layout.
std::vector<float> mllama_pixels(std::span<const float> patches, const MllamaImageConfig& config);

}  // namespace medvqa
