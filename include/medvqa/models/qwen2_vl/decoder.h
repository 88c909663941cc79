// Qwen2's decoder block with M-RoPE. Wang et al. 2024; Yang et al. 2024 (Qwen2).
#pragma once

#include <string>

#include "medvqa/models/qwen2_vl/config.h"
#include "medvqa/nn/linear.h"
#include "medvqa/nn/norm.h"

namespace medvqa::models::qwen2_vl {

// x += o(attention(rotary(qkv(norm x))));  x += down(silu(gate(norm x)) * up(norm x)).
class DecoderBlock {
 public:
  DecoderBlock(nn::Builder& builder, const std::string& name, const TextConfig& config);
  autograd::Var forward(autograd::Tape& t, const autograd::Var& x_TC,
                        const autograd::RotaryAngles& angles,
                        const autograd::Segments& samples) const;

 private:
  TextConfig config_;
  nn::RmsNorm attention_norm_, mlp_norm_;
  nn::Linear query_, key_, value_, output_, gate_, up_, down_;
};

}  // namespace medvqa::models::qwen2_vl
