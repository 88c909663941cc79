// mllama's cross-attention decoder block. Grattafiori et al. 2024, section 7.
#pragma once

#include <string>
#include <vector>

#include "medvqa/models/decoder_block.h"
#include "medvqa/models/mllama/config.h"

namespace medvqa::models::mllama {

// What a text row sees of the pictures, on the device; see CrossLayout.
struct CrossRows {
  std::vector<autograd::AttentionPart> parts;
  Tensor feed_forward_T;
};

// x += g o(attention(norm_q(q(norm x)), norm_k(k s), v s));  x += h r feed_forward(norm x),
// norm_q and norm_k over a head's channels; g, h: tanh of stored gates; r: 1, or 0 for rows that
// come before their sample's first picture.
class CrossBlock {
 public:
  CrossBlock(nn::Builder& builder, const std::string& name, const DecoderShape& shape);
  autograd::Var forward(autograd::Tape& t, const autograd::Var& x_TC,
                        const autograd::Var& states_SC, const CrossRows& rows) const;
  const std::string& name() const { return name_; }

 private:
  std::string name_;
  DecoderShape shape_;
  nn::RmsNorm attention_norm_, mlp_norm_;
  nn::Linear query_, key_, value_, output_;
  nn::RmsNorm query_norm_, key_norm_;
  double attention_gate_;
  FeedForward feed_forward_;
  double mlp_gate_;
};

}  // namespace medvqa::models::mllama
