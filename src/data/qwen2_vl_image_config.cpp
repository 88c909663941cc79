#include "src/data/qwen2_vl_image_config.h"

#include <fmt/format.h>

#include <cmath>
#include <optional>

#include "medvqa/core/error.h"
#include "medvqa/io/json.h"

namespace medvqa::data {
namespace {

namespace fs = std::filesystem;
using io::JsonObject;
using nlohmann::json;

constexpr std::int64_t kMostPixels = std::int64_t{1} << 40;
// Those of the class; published folders say 28 * 28 * 16384 themselves.
constexpr std::int64_t kDefaultMaxPixels = std::int64_t{28} * 28 * 1280;

struct ProcessorFile {
  std::string where;
  json value;
};

std::optional<ProcessorFile> find_file(const fs::path& folder) {
  std::error_code error;
  const fs::path whole = folder / "processor_config.json";
  if (fs::exists(whole, error)) {
    json value = io::read_json_file(whole, {ExitCode::model});
    if (JsonObject(value, whole.string(), ExitCode::model).has("image_processor")) {
      json nested = value["image_processor"];
      return ProcessorFile{fmt::format("{}: \"image_processor\"", whole.string()),
                           std::move(nested)};
    }
  }
  const fs::path file = folder / "preprocessor_config.json";
  if (!fs::exists(file, error)) return std::nullopt;
  return ProcessorFile{file.string(), io::read_json_file(file, {ExitCode::model})};
}

ResampleFilter filter_of(const JsonObject& file) {
  // Pillow's numbers.
  switch (file.integer_or("resample", 3)) {
    case 1:
      return ResampleFilter::lanczos;
    case 2:
      return ResampleFilter::bilinear;
    case 3:
      return ResampleFilter::bicubic;
    default:
      file.fail(
          fmt::format("\"resample\" must be 1 (Lanczos), 2 (bilinear) or 3 (bicubic), found "
                      "{}",
                      file.integer("resample")));
  }
}

void read_channels(const JsonObject& file, const char* key, bool is_divisor,
                   std::array<float, 3>& values) {
  if (!file.has(key)) return;
  const json& list = file.at(key);
  const bool is_triple = list.is_array() && list.size() == values.size();
  for (std::size_t c = 0; c < values.size(); ++c) {
    const bool is_fine =
        is_triple && list[c].is_number() && (!is_divisor || list[c].get<double>() > 0);
    if (!is_fine) {
      file.fail(fmt::format("\"{}\" must hold 3 {}numbers, found {}", key,
                            is_divisor ? "positive " : "", list.dump()));
    }
    values[c] = list[c].get<float>();
  }
}

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
  for (const char* key : {"do_resize", "do_rescale", "do_normalize"}) {
    if (!file.boolean_or(key, true)) {
      file.fail(fmt::format("\"{}\" is false, expected true: images are always prepared so", key));
    }
  }
  constexpr std::int64_t kMostPatch = 256;
  config.patch_size = static_cast<int>(file.integer_or("patch_size", 14, 1, kMostPatch));
  config.temporal_patch_size = static_cast<int>(file.integer_or("temporal_patch_size", 2, 1, 16));
  config.merge_size = static_cast<int>(file.integer_or("merge_size", 2, 1, 16));
  config.rescale_factor = file.number_or("rescale_factor", config.rescale_factor);
  config.resample = filter_of(file);
  read_channels(file, "image_mean", false, config.mean);
  read_channels(file, "image_std", true, config.std);
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
  if (const auto file = find_file(model_folder)) {
    read_file(JsonObject(file->value, file->where, ExitCode::model), config);
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
