#include "medvqa/image/qwen2_vl_processor.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "medvqa/core/error.h"

namespace medvqa {
namespace {

constexpr double kLargestRatio = 200.0;

ImageSize resized(int height, int width, const Qwen2VlImageConfig& config) {
  MEDVQA_CHECK(config.patch_size > 0 && config.merge_size > 0 && config.temporal_patch_size > 0,
               "patch, merge and temporal size are at least 1");
  return smart_resize(height, width, config.patch_size * config.merge_size, config.min_pixels,
                      config.max_pixels);
}

// One patch whose upper left pixel is `corner`, all its channels and times.
void write_patch(const std::uint8_t* corner, std::size_t stride, const ValueTable& table,
                 const Qwen2VlImageConfig& config, float* out) {
  const auto side = static_cast<std::size_t>(config.patch_size);
  const auto frame = side * side;
  for (std::size_t c = 0; c < 3; ++c) {
    const auto& values = table[c];
    float* first = out;
    for (std::size_t y = 0; y < side; ++y) {
      const std::uint8_t* row = corner + y * stride + c;
      for (std::size_t x = 0; x < side; ++x) *out++ = values[row[x * 3]];
    }
    for (int t = 1; t < config.temporal_patch_size; ++t) out = std::copy_n(first, frame, out);
  }
}

}  // namespace

ImageSize smart_resize(int height, int width, int factor, std::int64_t min_pixels,
                       std::int64_t max_pixels) {
  MEDVQA_CHECK(height > 0 && width > 0 && factor > 0, "sizes are at least 1");
  const double h = height;
  const double w = width;
  const double f = factor;
  const double ratio = std::max(h, w) / std::min(h, w);
  if (ratio > kLargestRatio) {
    throw UserError(
        ExitCode::data,
        fmt::format("image of {} x {} pixels: found sides in the ratio {:.0f}, expected "
                    "at most {:.0f}; crop it or leave it out of the dataset",
                    width, height, ratio, kLargestRatio));
  }
  // std::nearbyint rounds half to even, as Python's round does.
  double new_h = std::nearbyint(h / f) * f;
  double new_w = std::nearbyint(w / f) * f;
  if (new_h * new_w > static_cast<double>(max_pixels)) {
    const double beta = std::sqrt(h * w / static_cast<double>(max_pixels));
    new_h = std::max(f, std::floor(h / beta / f) * f);
    new_w = std::max(f, std::floor(w / beta / f) * f);
  } else if (new_h * new_w < static_cast<double>(min_pixels)) {
    const double beta = std::sqrt(static_cast<double>(min_pixels) / (h * w));
    new_h = std::ceil(h * beta / f) * f;
    new_w = std::ceil(w * beta / f) * f;
  }
  constexpr double kLargest = 1 << 20;
  if (!(new_h >= f && new_w >= f && new_h <= kLargest && new_w <= kLargest)) {
    throw UserError(ExitCode::data,
                    fmt::format("image of {} x {} pixels: found no size of whole blocks of {} for "
                                "it, expected {} to {} pixels in all; mend min_pixels and "
                                "max_pixels or leave the image out",
                                width, height, factor, min_pixels, max_pixels));
  }
  return {static_cast<int>(new_h), static_cast<int>(new_w)};
}

PatchGrid qwen2_vl_grid(int height, int width, const Qwen2VlImageConfig& config) {
  const ImageSize size = resized(height, width, config);
  return {1, size.height / config.patch_size, size.width / config.patch_size};
}

ImagePatches qwen2_vl_patches(const Image& image, const Qwen2VlImageConfig& config) {
  const ImageSize size = resized(image.height, image.width, config);
  const Image scaled = resize(image, size.width, size.height, config.resample);
  const ValueTable table = pixel_values(config.scale);
  const PatchGrid grid{1, size.height / config.patch_size, size.width / config.patch_size};
  const auto side = static_cast<std::size_t>(config.patch_size);
  const auto merge = static_cast<std::size_t>(config.merge_size);
  const std::size_t columns =
      3 * static_cast<std::size_t>(config.temporal_patch_size) * side * side;
  const std::size_t stride = static_cast<std::size_t>(size.width) * 3;
  ImagePatches patches{{}, grid.t, grid.h, grid.w};
  patches.values.resize(static_cast<std::size_t>(grid.patches()) * columns);
  float* out = patches.values.data();
  for (std::size_t block_y = 0; block_y < static_cast<std::size_t>(grid.h); block_y += merge) {
    for (std::size_t block_x = 0; block_x < static_cast<std::size_t>(grid.w); block_x += merge) {
      for (std::size_t i = 0; i < merge * merge; ++i, out += columns) {
        const std::size_t y = (block_y + i / merge) * side;
        const std::size_t x = (block_x + i % merge) * side;
        write_patch(scaled.rgb.data() + y * stride + x * 3, stride, table, config, out);
      }
    }
  }
  return patches;
}

}  // namespace medvqa
