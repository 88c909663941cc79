#include "src/data/image_config.h"

#include <fmt/format.h>

#include "medvqa/core/error.h"

namespace medvqa::data {
namespace {

namespace fs = std::filesystem;
using io::JsonObject;
using nlohmann::json;

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

}  // namespace

std::optional<ImageProcessorFile> find_image_processor_file(const fs::path& folder) {
  std::error_code error;
  const fs::path whole = folder / "processor_config.json";
  if (fs::exists(whole, error)) {
    json value = io::read_json_file(whole, {ExitCode::model});
    if (JsonObject(value, whole.string(), ExitCode::model).has("image_processor")) {
      json nested = value["image_processor"];
      return ImageProcessorFile{fmt::format("{}: \"image_processor\"", whole.string()),
                                std::move(nested)};
    }
  }
  const fs::path file = folder / "preprocessor_config.json";
  if (!fs::exists(file, error)) return std::nullopt;
  return ImageProcessorFile{file.string(), io::read_json_file(file, {ExitCode::model})};
}

ResampleFilter read_filter(const JsonObject& file, ResampleFilter fallback) {
  if (!file.has("resample")) return fallback;
  switch (file.integer("resample")) {
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

PixelScale read_pixel_scale(const JsonObject& file) {
  for (const char* key : {"do_resize", "do_rescale", "do_normalize"}) {
    if (!file.boolean_or(key, true)) {
      file.fail(fmt::format("\"{}\" is false, expected true: images are always prepared so", key));
    }
  }
  PixelScale scale;
  scale.rescale_factor = file.number_or("rescale_factor", scale.rescale_factor);
  read_channels(file, "image_mean", false, scale.mean);
  read_channels(file, "image_std", true, scale.std);
  return scale;
}

}  // namespace medvqa::data
