// Positions of Qwen's multimodal rotary embedding (M-RoPE). Wang et al. 2024, section 2.1.
#pragma once

#include <cstdint>
#include <vector>

#include "medvqa/models/input.h"

namespace medvqa::models {

// Rows t, h, w for every token of every sample. Text advances all three; an image of grid
// (t, h, w), whose placeholders cover t * h/merge * w/merge tokens, keeps its own coordinates
// relative to where it begins, and what follows continues after the largest of them.
// UserError(ExitCode::data) if the placeholders and the grids do not match.
std::vector<std::vector<std::int32_t>> mrope_positions(const PackedInput& input,
                                                       std::int32_t image_token_id,
                                                       std::int64_t merge_size);

}  // namespace medvqa::models
