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

inline constexpr double kVisionEps = 1e-6;  // of norms; no key of vision_config

// Pixels to rows of the language model's width. What Qwen2-VL and Qwen2.5-VL differ in.
class ImageTower {
 public:
  virtual ~ImageTower() = default;
  // Features [P / 4, text channels] of all images, in reading order of their merged patches.
  virtual autograd::StepVar forward(autograd::SegmentTape& tape, const PackedInput& input,
                                    DType compute) const = 0;
};

// x + proj(attention(qkv(normed x))), in both directions inside each segment.
class VisionAttention {
 public:
  VisionAttention(nn::Builder& builder, const std::string& name, const VisionConfig& config);
  autograd::Var operator()(autograd::Tape& t, const autograd::Var& normed_PC,
                           const autograd::Var& x_PC, const autograd::RotaryAngles& angles,
                           const autograd::Segments& segments) const;

 private:
  std::int64_t heads_, head_size_;
  nn::Linear qkv_, proj_;
};

// x += proj(attention(qkv(norm1 x)));  x += fc2(quick_gelu(fc1(norm2 x))).
class VisionBlock {
 public:
  VisionBlock(nn::Builder& builder, const std::string& name, const VisionConfig& config);
  autograd::Var forward(autograd::Tape& t, const autograd::Var& x_PC,
                        const autograd::RotaryAngles& angles,
                        const autograd::Segments& frames) const;
  const std::string& name() const { return name_; }

 private:
  std::string name_;
  nn::LayerNorm norm1_, norm2_;
  VisionAttention attention_;
  nn::Linear fc1_, fc2_;
};

// Four neighbouring patches, normalised, become one token of the language model's width, in the
// type of its residual stream.
class Merger {
 public:
  Merger(nn::Builder& builder, const std::string& name, const VisionConfig& config,
         std::int64_t out_channels);
  autograd::Var forward(autograd::Tape& t, const autograd::Var& normed_PC) const;
  const std::string& name() const { return name_; }

 private:
  std::string name_;
  std::int64_t wide_;
  nn::Linear first_, second_;
};

class VisionTower final : public ImageTower {
 public:
  VisionTower(nn::Builder& builder, const std::string& name, const Config& config);
  autograd::StepVar forward(autograd::SegmentTape& tape, const PackedInput& input,
                            DType compute) const override;

 private:
  std::string name_;
  VisionConfig config_;
  nn::Linear patch_embedding_;
  std::vector<VisionBlock> blocks_;
  nn::LayerNorm norm_;
  Merger merger_;
};

// A convolution over whole patches, as the linear it is.
nn::Linear patch_embedding(nn::Builder& builder, const std::string& name,
                           const VisionConfig& config);

// Attention stays inside one frame of one image: where each begins, [frames + 1].
std::vector<std::int32_t> frame_boundaries(const std::vector<PatchGrid>& grids);

// Row and column of every patch on its image's grid, in the processor's order: merge blocks row by
// row, the patches of a block row by row. Two axes [P] each.
std::vector<std::vector<std::int32_t>> patch_positions(const std::vector<PatchGrid>& grids,
                                                       std::int64_t merge_size);

// The first half of a head's pairs turns with the row, the second with the column.
autograd::RotaryAngles patch_angles(autograd::SegmentTape& tape,
                                    std::span<const std::vector<std::int32_t>> positions,
                                    const VisionConfig& config);

}  // namespace medvqa::models::qwen2_vl
