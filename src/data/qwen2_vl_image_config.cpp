#include "src/data/qwen2_vl_image_config.h"

#include <fmt/format.h>

#include "medvqa/core/error.h"
#include "medvqa/io/json.h"
#include "src/data/image_config.h"

namespace medvqa::data {
namespace {

namespace fs = std::filesystem;
using io::JsonObject;

constexpr std::int64_t kMostPixels = std::int64_t{1} << 40;
// Those of the class; published folders say 28 * 28 * 16384 themselves.
constexpr std::int64_t kDefaultMaxPixels = std::int64_t{28} * 28 * 1280;

// min_pixels and max_pixels, in any of the spellings there have been; the plain keys win.
void read_pixels(const JsonObject& file, Qwen2VlImageConfig& config) {
  if (file.has("size")) {
    const JsonObject size = file.object("size");
    config.min_pixels = size.integer_or("min_pixels", config.min_pixels, 1, kMostPixels);
    config.max_pixels = size.integer_or("max_pixels", config.max_pixels, 1, kMostPixels);
    config.min_pixels = size.integer_or("shortest_edge", config.min_pixels, 1, kMostPixels);
    config.max_pixels = size.integer_or("longest_edge", config.max_pixels, 1, kMostPixels);
  }
  config.min_pixels = file.integer_or("min_pixels", config.min_pixels, 1, kMostPixels);
  config.max_pixels = file.integer_or("max_pixels", config.max_pixels, 1, kMostPixels);
}

void read_file(const JsonObject& file, Qwen2VlImageConfig& config) {
  config.scale = read_pixel_scale(file);
  constexpr std::int64_t kMostPatch = 256;
  config.patch_size = static_cast<int>(file.integer_or("patch_size", 14, 1, kMostPatch));
  config.temporal_patch_size = static_cast<int>(file.integer_or("temporal_patch_size", 2, 1, 16));
  config.merge_size = static_cast<int>(file.integer_or("merge_size", 2, 1, 16));
  config.resample = read_filter(file, config.resample);
  read_pixels(file, config);
  if (config.min_pixels > config.max_pixels) {
    file.fail(fmt::format("found at least {} and at most {} pixels, expected the reverse order",
                          config.min_pixels, config.max_pixels));
  }
}

}  // namespace

Qwen2VlImageConfig read_qwen2_vl_image_config(const fs::path& model_folder,
                                              const ProcessorOptions& options) {
  Qwen2VlImageConfig config;
  config.max_pixels = kDefaultMaxPixels;
  if (const auto file = find_image_processor_file(model_folder)) {
    read_file(file->object(), config);
  }
  config.min_pixels = options.min_pixels.value_or(config.min_pixels);
  config.max_pixels = options.max_pixels.value_or(config.max_pixels);
  if (config.min_pixels < 1 || config.min_pixels > config.max_pixels) {
    throw UserError(ExitCode::config,
                    fmt::format("data.image: found min_pixels {} and max_pixels {} (keys not given "
                                "come from the model's processor file), expected 1 <= min_pixels "
                                "<= max_pixels",
                                config.min_pixels, config.max_pixels));
  }
  return config;
}

}  // namespace medvqa::data
