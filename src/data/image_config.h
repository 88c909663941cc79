// What the image processors' files have in common. Internal to the data module.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "medvqa/image/patches.h"
#include "medvqa/image/resize.h"
#include "medvqa/io/json.h"

namespace medvqa::data {

struct ImageProcessorFile {
  std::string where;  // for messages
  nlohmann::json value;
  io::JsonObject object() const { return {value, where, ExitCode::model}; }
};

// "image_processor" of processor_config.json, else preprocessor_config.json, else nothing.
std::optional<ImageProcessorFile> find_image_processor_file(
    const std::filesystem::path& model_folder);

// Pillow's number under "resample". UserError(ExitCode::model) for those not built.
ResampleFilter read_filter(const io::JsonObject& file, ResampleFilter fallback);

// rescale_factor, image_mean and image_std; and that the three steps are not switched off.
PixelScale read_pixel_scale(const io::JsonObject& file);

}  // namespace medvqa::data
