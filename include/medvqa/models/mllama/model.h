// mllama: vision tower, projector, and a decoder some of whose blocks attend to the pictures.
#pragma once

#include <variant>
#include <vector>

#include "medvqa/models/mllama/cross_block.h"
#include "medvqa/models/mllama/vision.h"
#include "medvqa/models/model.h"
#include "medvqa/nn/embedding.h"

namespace medvqa::models::mllama {

class Mllama final : public Model {
 public:
  Mllama(const Config& config, nn::Builder& builder);

  autograd::StepVar forward(autograd::SegmentTape& tape, const PackedInput& input) const override;
  autograd::Var final_norm(autograd::Tape& tape, const autograd::Var& x) const override {
    return norm_(tape, x);
  }
  const Tensor& head_weight() const override { return head_VC_; }

 private:
  // The projected vision tokens, and who sees which of them.
  autograd::StepVar see(autograd::SegmentTape& tape, const PackedInput& input,
                        CrossRows& rows) const;

  Config config_;
  DType compute_;
  VisionTower vision_;
  nn::Embedding embedding_;
  Tensor head_VC_;
  std::vector<std::variant<DecoderBlock, CrossBlock>> blocks_;
  nn::RmsNorm norm_;
  nn::Linear projector_;
};

// A sample of one picture of as many tiles as fit `max_pixels`, its placeholder first.
PackedInput largest_sample(const Config& config, std::int64_t tokens, std::int64_t max_pixels);

}  // namespace medvqa::models::mllama
