#include "medvqa/models/mrope.h"

#include <fmt/format.h>

#include <algorithm>

#include "medvqa/core/error.h"

namespace medvqa::models {

namespace {

using Rows = std::vector<std::vector<std::int32_t>>;

// Appends the coordinates of one image and returns the position after it.
std::int32_t append_image(const PatchGrid& grid, std::int64_t merge, std::int32_t next,
                          Rows& rows) {
  const std::int64_t height = grid.h / merge;
  const std::int64_t width = grid.w / merge;
  for (std::int64_t t = 0; t < grid.t; ++t) {
    for (std::int64_t h = 0; h < height; ++h) {
      for (std::int64_t w = 0; w < width; ++w) {
        rows[0].push_back(next + static_cast<std::int32_t>(t));
        rows[1].push_back(next + static_cast<std::int32_t>(h));
        rows[2].push_back(next + static_cast<std::int32_t>(w));
      }
    }
  }
  return next + static_cast<std::int32_t>(std::max({grid.t, height, width}));
}

}  // namespace

Rows mrope_positions(const PackedInput& input, std::int32_t image_token_id,
                     std::int64_t merge_size) {
  Rows rows(3);
  std::size_t image = 0;
  for (std::size_t sample = 0; sample + 1 < input.cu_seqlens.size(); ++sample) {
    std::int32_t next = 0;
    const auto end = static_cast<std::size_t>(input.cu_seqlens[sample + 1]);
    for (auto i = static_cast<std::size_t>(input.cu_seqlens[sample]); i < end;) {
      if (input.ids[i] != image_token_id) {
        for (auto& row : rows) row.push_back(next);
        ++next;
        ++i;
        continue;
      }
      if (image >= input.grids.size()) {
        throw UserError(ExitCode::data, fmt::format("sample {} has more image placeholders than "
                                                    "its {} images fill; remove the placeholder "
                                                    "from the text",
                                                    sample, input.grids.size()));
      }
      const PatchGrid& grid = input.grids[image++];
      const auto tokens = static_cast<std::size_t>(grid.patches() / (merge_size * merge_size));
      const auto first = input.ids.begin() + static_cast<std::ptrdiff_t>(i);
      const bool whole =
          i + tokens <= end && std::all_of(first, first + static_cast<std::ptrdiff_t>(tokens),
                                           [&](std::int32_t id) { return id == image_token_id; });
      if (!whole) {
        throw UserError(ExitCode::data,
                        fmt::format("sample {}: an image of {} tokens has fewer placeholders; the "
                                    "prompt was cut or edited",
                                    sample, tokens));
      }
      next = append_image(grid, merge_size, next, rows);
      i += tokens;
    }
  }
  if (image != input.grids.size()) {
    throw UserError(ExitCode::data,
                    fmt::format("{} images but placeholders for {}", input.grids.size(), image));
  }
  return rows;
}

}  // namespace medvqa::models
