// Qwen2-VL, and Qwen2.5-VL with another tower: vision tower, merger, splice, decoder.
#pragma once

#include <memory>
#include <vector>

#include "medvqa/models/decoder_block.h"
#include "medvqa/models/model.h"
#include "medvqa/models/qwen2_vl/vision.h"
#include "medvqa/nn/embedding.h"

namespace medvqa::models::qwen2_vl {

class Qwen2Vl final : public Model {
 public:
  Qwen2Vl(const Config& config, std::unique_ptr<ImageTower> vision, nn::Builder& builder);

  autograd::StepVar forward(autograd::SegmentTape& tape, const PackedInput& input) const override;
  autograd::Var final_norm(autograd::Tape& tape, const autograd::Var& x) const override {
    return norm_(tape, x);
  }
  const Tensor& head_weight() const override {
    return config_.tied_head ? embedding_.table() : head_VC_;
  }

 private:
  autograd::StepVar embed(autograd::SegmentTape& tape, const PackedInput& input) const;

  Config config_;
  DType compute_;
  std::unique_ptr<ImageTower> vision_;
  nn::Embedding embedding_;
  Tensor head_VC_;
  std::vector<DecoderBlock> blocks_;
  nn::RmsNorm norm_;
};

// The three axes of M-RoPE; see mrope.h.
std::vector<std::vector<std::int32_t>> positions(const Config& config, const PackedInput& input);

// A sample of one picture of as many patches as `max_pixels` allows, its placeholders first.
PackedInput largest_sample(const Config& config, std::int64_t tokens, std::int64_t max_pixels);

}  // namespace medvqa::models::qwen2_vl
