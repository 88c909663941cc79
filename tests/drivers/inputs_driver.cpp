// Runs the tokenizer and the image processor over what comes on standard input, one JSON value a
// line, for scripts/parity_inputs.py.
//
//   tokenize TOKENIZER.JSON   lines: a string          -> {"ids": [...], "offsets": [[b, e], ...],
//                             "text": decoded}; a folder instead: its SentencePiece tokenizer
//   images MAX_PIXELS         lines: a path            -> {"size": [w, h], "resized": [w, h],
//                             "grid": [t, h, w]} and, raw, decoded u8, resized u8 and patches f32;
//                             or {"error": "..."} alone
//   tiles TILE_SIZE           lines: a path            -> {"grid": [t, h, w]} and, raw, mllama's
//   pixels
//                             f32 [tiles, 3, TILE_SIZE, TILE_SIZE]
//   resize FILTER             lines: [path, w, h]      -> {"size": [w, h]} and, raw, resized u8
#include <cstdio>
#include <exception>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "medvqa/core/error.h"
#include "medvqa/image/mllama_processor.h"
#include "medvqa/image/qwen2_vl_processor.h"
#include "medvqa/text/tokenizer.h"

namespace {

using nlohmann::json;

void put_line(const json& value) {
  const std::string line = value.dump() + "\n";
  std::fwrite(line.data(), 1, line.size(), stdout);
}

template <class T>
void put_raw(const std::vector<T>& values) {
  std::fwrite(values.data(), sizeof(T), values.size(), stdout);
}

void tokenize(const std::string& path) {
  const medvqa::Tokenizer tokenizer = std::filesystem::is_directory(path)
                                          ? medvqa::Tokenizer::load_folder(path)
                                          : medvqa::Tokenizer::load(path);
  for (std::string line; std::getline(std::cin, line);) {
    const medvqa::Encoding encoding = tokenizer.encode(json::parse(line).get<std::string>());
    json offsets = json::array();
    for (const medvqa::Span& span : encoding.offsets) offsets.push_back({span.begin, span.end});
    put_line({{"ids", encoding.ids},
              {"offsets", std::move(offsets)},
              {"text", tokenizer.decode(encoding.ids, /*skip_special=*/false)}});
  }
}

void process_images(std::int64_t max_pixels) {
  medvqa::Qwen2VlImageConfig config;
  config.max_pixels = max_pixels;
  for (std::string line; std::getline(std::cin, line);) {
    try {
      const medvqa::Image image = medvqa::load_image(json::parse(line).get<std::string>());
      const medvqa::ImagePatches patches = medvqa::qwen2_vl_patches(image, config);
      const int width = static_cast<int>(patches.grid_w) * config.patch_size;
      const int height = static_cast<int>(patches.grid_h) * config.patch_size;
      const medvqa::Image resized = medvqa::resize(image, width, height, config.resample);
      put_line({{"size", {image.width, image.height}},
                {"resized", {width, height}},
                {"grid", {patches.grid_t, patches.grid_h, patches.grid_w}}});
      put_raw(image.rgb);
      put_raw(resized.rgb);
      put_raw(patches.values);
    } catch (const medvqa::UserError& error) {
      put_line({{"error", error.what()}});
    }
  }
}

void process_tiles(int tile_size) {
  medvqa::MllamaImageConfig config;
  config.tile_size = tile_size;
  for (std::string line; std::getline(std::cin, line);) {
    const medvqa::Image image = medvqa::load_image(json::parse(line).get<std::string>());
    const medvqa::PatchGrid grid = medvqa::mllama_grid(image.height, image.width, config);
    put_line({{"grid", {grid.t, grid.h, grid.w}}});
    put_raw(medvqa::mllama_pixels(medvqa::mllama_patches(image, config), config));
  }
}

void resize_images(std::string_view name) {
  const auto filter = name == "bilinear"  ? medvqa::ResampleFilter::bilinear
                      : name == "bicubic" ? medvqa::ResampleFilter::bicubic
                                          : medvqa::ResampleFilter::lanczos;
  for (std::string line; std::getline(std::cin, line);) {
    const json job = json::parse(line);
    const medvqa::Image image = medvqa::load_image(job[0].get<std::string>());
    const medvqa::Image resized = medvqa::resize(image, job[1], job[2], filter);
    put_line({{"size", {resized.width, resized.height}}});
    put_raw(resized.rgb);
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const std::string_view verb = argc == 3 ? argv[1] : "";
    if (verb == "tokenize") {
      tokenize(argv[2]);
    } else if (verb == "images") {
      process_images(std::stoll(argv[2]));
    } else if (verb == "tiles") {
      process_tiles(std::stoi(argv[2]));
    } else if (verb == "resize") {
      resize_images(argv[2]);
    } else {
      std::fputs("usage: medvqa_inputs_driver tokenize|images|tiles|resize ARGUMENT\n", stderr);
      return 2;
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
