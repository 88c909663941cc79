// The decoder block that the language models share. Touvron et al. 2023; Yang et al. 2024.
#pragma once

#include <string>

#include "medvqa/autograd/functions.h"
#include "medvqa/nn/linear.h"
#include "medvqa/nn/norm.h"

namespace medvqa::models {

struct DecoderShape {
  std::int64_t channels = 0;
  std::int64_t feed_forward = 0;
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  double eps = 1e-6;
  bool qkv_bias = false;
  std::int64_t head_size() const { return channels / heads; }
  std::int64_t kv_channels() const { return kv_heads * head_size(); }
};

// down(silu(gate(x)) * up(x)). Shazeer 2020.
class FeedForward {
 public:
  FeedForward(nn::Builder& builder, const std::string& name, std::int64_t channels,
              std::int64_t feed_forward, bool bias, nn::LinearKind kind);
  // A decoder block's.
  FeedForward(nn::Builder& builder, const std::string& name, const DecoderShape& shape);
  autograd::Var operator()(autograd::Tape& t, const autograd::Var& x_TC,
                           const nn::Linear::Epilogue& epilogue) const;

 private:
  nn::Linear gate_, up_, down_;
};

// x += o(attention(rotary(qkv(norm x))));  x += feed_forward(norm x). Grouped-query, causal.
class DecoderBlock {
 public:
  DecoderBlock(nn::Builder& builder, const std::string& name, const DecoderShape& shape);
  autograd::Var forward(autograd::Tape& t, const autograd::Var& x_TC,
                        const autograd::RotaryAngles& angles,
                        const autograd::Segments& samples) const;
  const std::string& name() const { return name_; }

 private:
  std::string name_;
  DecoderShape shape_;
  nn::RmsNorm attention_norm_, mlp_norm_;
  nn::Linear query_, key_, value_, output_;
  FeedForward feed_forward_;
};

}  // namespace medvqa::models
