// One packed micro-batch as a model reads it: host memory only, no padding.
#pragma once

#include <cstdint>
#include <vector>

namespace medvqa::models {

// Patches of one image: t frames of h x w patches.
struct PatchGrid {
  std::int64_t t = 1, h = 0, w = 0;
  std::int64_t patches() const { return t * h * w; }
};

struct PackedInput {
  std::vector<std::int32_t> ids;         // [T], all samples one after another
  std::vector<std::int32_t> cu_seqlens;  // [N + 1], where each sample begins
  std::vector<float> patches;            // [P, patch columns], all images in order
  std::vector<PatchGrid> grids;          // one an image, in the order of the placeholders
  std::int64_t patch_rows = 0;           // P, also when `patches` is left empty for a dry run

  std::int64_t tokens() const { return static_cast<std::int64_t>(ids.size()); }
  std::int64_t samples() const { return static_cast<std::int64_t>(cu_seqlens.size()) - 1; }
};

}  // namespace medvqa::models
