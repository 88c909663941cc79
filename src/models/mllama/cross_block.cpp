// T text tokens, S vision tokens, C channels, D head size.
#include "medvqa/models/mllama/cross_block.h"

#include <cmath>

#include "medvqa/models/mllama/vision.h"

namespace medvqa::models::mllama {

using autograd::Tape;
using autograd::Var;
using nn::LinearKind;

CrossBlock::CrossBlock(nn::Builder& b, const std::string& name, const DecoderShape& s)
    : name_(name),
      shape_(s),
      attention_norm_(b, name + ".input_layernorm", s.channels, s.eps),
      mlp_norm_(b, name + ".post_attention_layernorm", s.channels, s.eps),
      query_(b, name + ".cross_attn.q_proj", {s.channels, s.channels, false},
             LinearKind::language_attention),
      key_(b, name + ".cross_attn.k_proj", {s.kv_channels(), s.channels, false},
           LinearKind::language_attention),
      value_(b, name + ".cross_attn.v_proj", {s.kv_channels(), s.channels, false},
             LinearKind::language_attention),
      output_(b, name + ".cross_attn.o_proj", {s.channels, s.channels, false},
              LinearKind::language_attention),
      query_norm_(b, name + ".cross_attn.q_norm", s.head_size(), s.eps),
      key_norm_(b, name + ".cross_attn.k_norm", s.head_size(), s.eps),
      attention_gate_(read_gate(b, name + ".cross_attn_attn_gate")),
      feed_forward_(b, name + ".mlp", s),
      mlp_gate_(read_gate(b, name + ".cross_attn_mlp_gate")) {}

Var CrossBlock::forward(Tape& t, const Var& x, const Var& states, const CrossRows& rows) const {
  const std::int64_t size = shape_.head_size();
  const auto by_head = [&](const nn::RmsNorm& norm, const Var& v) {
    const Shape whole = v.value.shape;
    return t.view(norm(t, t.view(v, {v.value.elements() / size, size})), whole);
  };
  const Var q = by_head(query_norm_, query_(t, attention_norm_(t, x)));
  const Var k = by_head(key_norm_, key_(t, states));
  const Var v = value_(t, states);
  const Var attended =
      attention(t, {q, 0, shape_.heads}, {k, 0, shape_.kv_heads}, {v, 0, shape_.kv_heads},
                {.head_size = size, .scale = 1 / std::sqrt(static_cast<double>(size))}, rows.parts);
  const Var middle =
      add_scaled(t, x, output_(t, attended, {.joins_residual = true}), {.factor = attention_gate_});
  const Var m = feed_forward_(t, mlp_norm_(t, middle), {.last = true, .joins_residual = true});
  return add_scaled(t, middle, m,
                    {.factor = mlp_gate_, .scale_T = rows.feed_forward_T, .last = true});
}

}  // namespace medvqa::models::mllama
