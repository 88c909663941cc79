// The tensors of one optimizer step, for comparison with other programs, as one safetensors file:
//   input_ids i64 [T], cu_seqlens i32 [N + 1]: all samples one after another, no padding
//   labels i64 [T]: the token's own id, unshifted, or -100
//   position_ids i64 [3, T] (M-RoPE) or [T]
//   pixel_values f32 after normalisation, [P, columns] and image_grid_thw i64 [n, 3] (Qwen2-VL), or
//   [tiles, 3, H, W] and aspect_ratio_ids, num_tiles i64 [n] (mllama); none for text
//   logit_rows i64 [R]: row t predicts label t + 1, and that label counts
//   logits f32 [R, V], loss f32 [1] = sum of cross-entropy / R
//   grad.KEY f32: one for every tensor of adapter_model.safetensors, before clipping
// Of a classification labels are i64 [N], the classes' indices, row t is a sample's last token,
// logits are f32 [N, classes], and grad.head.weight f32 [classes, C] is there too.
// The metadata key "samples" holds the sample ids as JSON.
#pragma once

#include <filesystem>

#include "medvqa/train/config.h"

namespace medvqa::train {

// Loss and gradients of the first optimizer step's samples; nothing is updated, and FILE is the
// only thing written.
void write_probe(const Config& config, const std::filesystem::path& file);

// The inputs of every training sample in file order; no weights are loaded.
void write_probe_inputs(const Config& config, const std::filesystem::path& file);

}  // namespace medvqa::train
