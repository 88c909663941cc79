#include "medvqa/models/mllama/layout.h"

#include <fmt/format.h>

#include <algorithm>

#include "medvqa/core/error.h"

namespace medvqa::models::mllama {

namespace {

// Appends the sample's key rows and rectangles; `places` are the rows of its placeholders.
void add_sample(autograd::RowRange text, const std::vector<std::int64_t>& places,
                std::span<const ImageRows> images, const Config& config, CrossLayout& layout) {
  const std::int64_t tokens = config.vision.tile_tokens();
  const auto first_key = static_cast<std::int64_t>(layout.key_rows.size());
  const auto add_keys = [&](const ImageRows& image, std::int64_t from, std::int64_t to) {
    for (std::int64_t row = from * tokens; row < to * tokens; ++row) {
      layout.key_rows.push_back(static_cast<std::int32_t>(image.begin + row));
    }
  };
  std::vector<std::int64_t> begins;  // first key of each picture, and the end of the last
  for (const ImageRows& image : images) {
    begins.push_back(static_cast<std::int64_t>(layout.key_rows.size()));
    add_keys(image, 0, image.tiles);
  }
  begins.push_back(static_cast<std::int64_t>(layout.key_rows.size()));
  for (const ImageRows& image : images) add_keys(image, image.tiles, config.vision.max_tiles);
  const auto last_key = static_cast<std::int64_t>(layout.key_rows.size());

  if (text.begin < places.front()) {
    layout.parts.push_back({{text.begin, places.front()}, {first_key, last_key}});
  }
  std::size_t run = 0;
  for (std::size_t i = 0; i < places.size(); ++i) {
    if (i > 0 && places[i] != places[i - 1] + 1) run = i;
    const std::int64_t end = i + 1 < places.size() ? places[i + 1] : text.end;
    layout.parts.push_back({{places[i], end}, {begins[run], begins[i + 1]}});
  }
  std::fill(layout.feed_forward.begin() + places.front(), layout.feed_forward.begin() + text.end,
            1.0f);
}

}  // namespace

std::int64_t rows_of_an_image(const VisionConfig& config) {
  return config.max_tiles * (config.tile_tokens() + config.tile_pads());
}

std::vector<ImageRows> image_rows(const std::vector<PatchGrid>& grids, const VisionConfig& config) {
  const std::int64_t side = config.patches_a_side();
  std::vector<ImageRows> images;
  for (const PatchGrid& g : grids) {
    const std::pair<std::int64_t, std::int64_t> tiles{g.h / side, g.w / side};
    const auto found = std::find(config.ratios.begin(), config.ratios.end(), tiles);
    if (g.t != 1 || g.h % side != 0 || g.w % side != 0 || found == config.ratios.end()) {
      throw UserError(ExitCode::data,
                      fmt::format("an image of {} x {} patches is no arrangement of tiles of {} x "
                                  "{} patches that the model knows; take config.json and the "
                                  "processor's file from the same model",
                                  g.h, g.w, side, side));
    }
    images.push_back({static_cast<std::int64_t>(images.size()) * rows_of_an_image(config),
                      tiles.first * tiles.second, found - config.ratios.begin() + 1});
  }
  return images;
}

std::vector<RowParts> vision_parts(const std::vector<ImageRows>& images,
                                   const VisionConfig& config) {
  const std::int64_t rows = rows_of_an_image(config);
  std::vector<RowParts> parts;
  for (const ImageRows& image : images) {
    const std::int64_t middle = image.begin + image.tiles * config.tile_tokens();
    const std::int64_t end = image.begin + rows;
    parts.push_back({{image.begin, middle}, {image.begin, end}});
    if (middle < end) parts.push_back({{middle, end}, {image.begin, middle}});
  }
  return parts;
}

CrossLayout cross_layout(const PackedInput& input, const std::vector<ImageRows>& images,
                         const Config& config) {
  CrossLayout layout;
  layout.feed_forward.resize(input.ids.size());
  std::size_t next = 0;
  for (std::size_t n = 0; n + 1 < input.cu_seqlens.size(); ++n) {
    const autograd::RowRange text{input.cu_seqlens[n], input.cu_seqlens[n + 1]};
    std::vector<std::int64_t> places;
    for (std::int64_t t = text.begin; t < text.end; ++t) {
      if (input.ids[static_cast<std::size_t>(t)] == config.image_token_id) places.push_back(t);
    }
    if (places.empty()) continue;
    if (next + places.size() > images.size()) {
      throw UserError(ExitCode::data, fmt::format("sample {} has more image placeholders than "
                                                  "there are images; remove the placeholder from "
                                                  "the text",
                                                  n));
    }
    add_sample(text, places, std::span(images).subspan(next, places.size()), config, layout);
    next += places.size();
  }
  if (next != images.size()) {
    throw UserError(ExitCode::data,
                    fmt::format("{} images but placeholders for {}", images.size(), next));
  }
  return layout;
}

}  // namespace medvqa::models::mllama
