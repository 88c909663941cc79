#include "medvqa/image/mllama_processor.h"

#include <algorithm>
#include <cmath>

#include "medvqa/core/error.h"

namespace medvqa {
namespace {

// Length of one side after resizing by `scale`, which the other side sets.
int scaled_length(int length, double scale, int most) {
  const double scaled = std::floor(static_cast<double>(length) * scale);
  return std::min(std::max(static_cast<int>(scaled), 1), most);
}

// The part of the canvas that shows the picture, in the tile at `top`, `left`.
struct Window {
  const Image& picture;
  int top, left;
};

// One patch whose upper left pixel of the tile is `y`, `x`; outside the picture it is black.
void write_patch(const Window& window, int y, int x, int side, const ValueTable& values,
                 float* out) {
  const Image& picture = window.picture;
  for (std::size_t c = 0; c < 3; ++c) {
    for (int row = 0; row < side; ++row) {
      const int from_y = window.top + y + row;
      for (int column = 0; column < side; ++column) {
        const int from_x = window.left + x + column;
        const bool inside = from_y < picture.height && from_x < picture.width;
        const std::size_t at =
            (static_cast<std::size_t>(from_y) * static_cast<std::size_t>(picture.width) +
             static_cast<std::size_t>(from_x)) *
                3 +
            c;
        *out++ = values[c][inside ? picture.rgb[at] : 0];
      }
    }
  }
}

}  // namespace

TileCanvas mllama_canvas(int height, int width, const MllamaImageConfig& config) {
  MEDVQA_CHECK(height > 0 && width > 0 && config.tile_size > 0 && config.max_tiles > 0,
               "sizes are at least 1");
  const int tile = config.tile_size;
  TileCanvas best;
  double best_scale = 0;
  for (int high = 1; high <= config.max_tiles; ++high) {
    for (int wide = 1; wide * high <= config.max_tiles; ++wide) {
      const double scale = std::min(static_cast<double>(high * tile) / height,
                                    static_cast<double>(wide * tile) / width);
      const bool smaller = high * wide < best.tiles_high * best.tiles_wide;
      const bool is_better =
          best_scale >= 1 ? scale >= 1 && scale < best_scale : scale > best_scale;
      if (is_better || (scale == best_scale && smaller)) {
        best = {high, wide, {}};
        best_scale = scale;
      }
    }
  }
  const int most_high = std::clamp(height, tile, best.tiles_high * tile);
  const int most_wide = std::clamp(width, tile, best.tiles_wide * tile);
  const double by_height = static_cast<double>(most_high) / height;
  const double by_width = static_cast<double>(most_wide) / width;
  if (by_width < by_height) {
    best.resized = {scaled_length(height, by_width, most_high), most_wide};
  } else {
    best.resized = {most_high, scaled_length(width, by_height, most_wide)};
  }
  return best;
}

PatchGrid mllama_grid(int height, int width, const MllamaImageConfig& config) {
  const TileCanvas canvas = mllama_canvas(height, width, config);
  return {1, canvas.tiles_high * config.patches_a_side(),
          canvas.tiles_wide * config.patches_a_side()};
}

std::vector<float> mllama_patches(const Image& image, const MllamaImageConfig& config) {
  const TileCanvas canvas = mllama_canvas(image.height, image.width, config);
  const Image picture = resize(image, canvas.resized.width, canvas.resized.height, config.resample);
  const ValueTable values = pixel_values(config.scale);
  const PatchGrid grid = mllama_grid(image.height, image.width, config);
  const auto columns = static_cast<std::size_t>(config.patch_columns());
  const int side = config.patch_size;
  std::vector<float> patches(static_cast<std::size_t>(grid.patches()) * columns);
  float* out = patches.data();
  for (int tile = 0; tile < canvas.tiles_high * canvas.tiles_wide; ++tile) {
    const Window window{picture, tile / canvas.tiles_wide * config.tile_size,
                        tile % canvas.tiles_wide * config.tile_size};
    for (int y = 0; y + side <= config.tile_size; y += side) {
      for (int x = 0; x + side <= config.tile_size; x += side, out += columns) {
        write_patch(window, y, x, side, values, out);
      }
    }
  }
  return patches;
}

std::vector<float> mllama_pixels(std::span<const float> patches, const MllamaImageConfig& config) {
  const auto side = static_cast<std::size_t>(config.patch_size);
  const auto tile = static_cast<std::size_t>(config.tile_size);
  const std::size_t across = tile / side;
  std::vector<float> pixels(patches.size());
  const float* in = patches.data();
  for (std::size_t patch = 0; patch * 3 * side * side < patches.size(); ++patch) {
    const std::size_t corner = patch / (across * across) * 3 * tile * tile +
                               patch / across % across * side * tile + patch % across * side;
    for (std::size_t c = 0; c < 3; ++c) {
      for (std::size_t row = 0; row < side; ++row, in += side) {
        std::copy_n(in, side, pixels.data() + corner + c * tile * tile + row * tile);
      }
    }
  }
  return pixels;
}

}  // namespace medvqa
