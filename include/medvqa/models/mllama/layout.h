// Which rows mean what: tokens of the vision tower, and which of them a text token sees.
#pragma once

#include <cstdint>
#include <vector>

#include "medvqa/autograd/attention.h"
#include "medvqa/models/input.h"
#include "medvqa/models/mllama/config.h"

namespace medvqa::models::mllama {

// An image takes `max_tiles` slots whatever its own number of tiles: its rows are the tokens of the
// slots one after another, then the padding of every slot. Slots without a tile are no tokens of
// the picture, but the tiles attend to them, as in the reference.
struct ImageRows {
  std::int64_t begin = 0;  // of its rows
  std::int64_t tiles = 0;  // in use
  std::int64_t ratio = 0;  // aspect-ratio id, from 1
};

// UserError(ExitCode::data) for a grid that is none of the model's arrangements of tiles.
std::vector<ImageRows> image_rows(const std::vector<PatchGrid>& grids, const VisionConfig& config);
std::int64_t rows_of_an_image(const VisionConfig& config);

// Rectangles of a mask, without tables on the device.
struct RowParts {
  autograd::RowRange q, k;
};

// Of the vision tower: a pair is masked only if neither is a token of the picture. So the tokens
// attend to all rows of their image, and the other rows to the tokens.
std::vector<RowParts> vision_parts(const std::vector<ImageRows>& images,
                                   const VisionConfig& config);

// Cross-attention. A text token sees the pictures whose placeholder, or run of placeholders, was
// the last before it. Tokens before a sample's first picture see every slot of all its pictures,
// used or not, but skip the feed-forward half of the block: as in the reference. A sample without
// pictures takes no part.
struct CrossLayout {
  // Vision rows that serve as keys, [S]: of every sample the tokens of its pictures in order, then
  // those of their unused slots.
  std::vector<std::int32_t> key_rows;
  std::vector<RowParts> parts;      // text rows and keys
  std::vector<float> feed_forward;  // [T], 1 or 0
};
// UserError(ExitCode::data) if placeholders and pictures do not match.
CrossLayout cross_layout(const PackedInput& input, const std::vector<ImageRows>& images,
                         const Config& config);

}  // namespace medvqa::models::mllama
