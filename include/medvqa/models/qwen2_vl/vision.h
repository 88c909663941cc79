// Qwen2-VL's vision tower and merger. Wang et al. 2024, section 2.1.
#pragma once

#include <string>
#include <vector>

#include "medvqa/models/input.h"
#include "medvqa/models/qwen2_vl/config.h"
#include "medvqa/models/upload.h"
#include "medvqa/nn/linear.h"
#include "medvqa/nn/norm.h"

namespace medvqa::models::qwen2_vl {

// x += proj(attention(qkv(norm1 x)));  x += fc2(quick_gelu(fc1(norm2 x))).
class VisionBlock {
 public:
  VisionBlock(nn::Builder& builder, const std::string& name, const VisionConfig& config);
  autograd::Var forward(autograd::Tape& t, const autograd::Var& x_PC,
                        const autograd::RotaryAngles& angles,
                        const autograd::Segments& frames) const;

 private:
  VisionConfig config_;
  nn::LayerNorm norm1_, norm2_;
  nn::Linear qkv_, proj_, fc1_, fc2_;
};

// Four neighbouring patches become one token of the language model's width.
class Merger {
 public:
  Merger(nn::Builder& builder, const std::string& name, const VisionConfig& config,
         std::int64_t out_channels);
  autograd::Var forward(autograd::Tape& t, const autograd::Var& x_PC) const;

 private:
  std::int64_t wide_;
  nn::LayerNorm norm_;
  nn::Linear first_, second_;
};

class VisionTower {
 public:
  VisionTower(nn::Builder& builder, const std::string& name, const VisionConfig& config,
              std::int64_t out_channels);
  // Features [P / 4, out_channels] of all images, in reading order of their merged patches.
  autograd::StepVar forward(autograd::SegmentTape& tape, const PackedInput& input,
                            DType compute) const;

 private:
  VisionConfig config_;
  nn::Linear patch_embedding_;
  std::vector<VisionBlock> blocks_;
  Merger merger_;
};

// Row and column of every patch on its image's grid, in the processor's order: merge blocks row by
// row, the patches of a block row by row. Two axes [P] each.
std::vector<std::vector<std::int32_t>> patch_positions(const std::vector<PatchGrid>& grids,
                                                       std::int64_t merge_size);

}  // namespace medvqa::models::qwen2_vl
