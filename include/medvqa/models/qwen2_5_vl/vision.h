// Qwen2.5-VL's vision tower: RMSNorm, SwiGLU, attention inside windows. Bai et al. 2025,
// section 2.1.1. Everything behind it is Qwen2-VL's.
#pragma once

#include <string>
#include <vector>

#include "medvqa/models/decoder_block.h"
#include "medvqa/models/qwen2_5_vl/config.h"
#include "medvqa/models/qwen2_vl/vision.h"

namespace medvqa::models::qwen2_5_vl {

// x += proj(attention(qkv(norm1 x)));  x += feed_forward(norm2 x), all linears with bias.
class VisionBlock {
 public:
  VisionBlock(nn::Builder& builder, const std::string& name, const qwen2_vl::VisionConfig& config);
  autograd::Var forward(autograd::Tape& t, const autograd::Var& x_PC,
                        const autograd::RotaryAngles& angles,
                        const autograd::Segments& windows) const;
  const std::string& name() const { return name_; }

 private:
  std::string name_;
  nn::RmsNorm norm1_, norm2_;
  qwen2_vl::VisionAttention attention_;
  FeedForward feed_forward_;
};

class VisionTower final : public qwen2_vl::ImageTower {
 public:
  VisionTower(nn::Builder& builder, const std::string& name, const Config& config);
  autograd::StepVar forward(autograd::SegmentTape& tape, const PackedInput& input,
                            DType compute) const override;

 private:
  std::string name_;
  Config config_;
  nn::Linear patch_embedding_;
  std::vector<VisionBlock> blocks_;
  nn::RmsNorm norm_;
  qwen2_vl::Merger merger_;
};

// Merged patches window by window: windows of `window` x `window` of them in reading order, smaller
// ones where a frame ends, each in reading order itself.
struct WindowOrder {
  std::vector<std::int32_t> merged;      // in the order of the processor, [P / merge^2]
  std::vector<std::int32_t> boundaries;  // where each window begins, in patches, [windows + 1]
};
WindowOrder window_order(const std::vector<PatchGrid>& grids, std::int64_t window,
                         std::int64_t merge_size);

}  // namespace medvqa::models::qwen2_5_vl
