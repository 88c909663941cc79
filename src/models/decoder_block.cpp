// T tokens, C channels, H query heads, G key/value heads, D head size.
#include "medvqa/models/decoder_block.h"

#include <array>
#include <cmath>

namespace medvqa::models {

using autograd::Tape;
using autograd::Var;
using nn::LinearKind;

FeedForward::FeedForward(nn::Builder& b, const std::string& name, std::int64_t channels,
                         std::int64_t feed_forward, bool bias, LinearKind kind)
    : gate_(b, name + ".gate_proj", {feed_forward, channels, bias}, kind),
      up_(b, name + ".up_proj", {feed_forward, channels, bias}, kind),
      down_(b, name + ".down_proj", {channels, feed_forward, bias}, kind) {}

FeedForward::FeedForward(nn::Builder& b, const std::string& name, const DecoderShape& s)
    : FeedForward(b, name, s.channels, s.feed_forward, false, LinearKind::language_mlp) {}

Var FeedForward::operator()(Tape& t, const Var& x, const nn::Linear::Epilogue& epilogue) const {
  const std::array<const nn::Linear*, 2> gate_up{&gate_, &up_};
  return down_(t, swiglu(t, linear_group(t, x, gate_up)), epilogue);
}

DecoderBlock::DecoderBlock(nn::Builder& b, const std::string& name, const DecoderShape& s)
    : name_(name),
      shape_(s),
      attention_norm_(b, name + ".input_layernorm", s.channels, s.eps),
      mlp_norm_(b, name + ".post_attention_layernorm", s.channels, s.eps),
      query_(b, name + ".self_attn.q_proj", {s.channels, s.channels, s.qkv_bias},
             LinearKind::language_attention),
      key_(b, name + ".self_attn.k_proj", {s.kv_channels(), s.channels, s.qkv_bias},
           LinearKind::language_attention),
      value_(b, name + ".self_attn.v_proj", {s.kv_channels(), s.channels, s.qkv_bias},
             LinearKind::language_attention),
      output_(b, name + ".self_attn.o_proj", {s.channels, s.channels, false},
              LinearKind::language_attention),
      feed_forward_(b, name + ".mlp", s) {}

Var DecoderBlock::forward(Tape& t, const Var& x, const autograd::RotaryAngles& angles,
                          const autograd::Segments& samples) const {
  const std::int64_t heads = shape_.heads;
  const std::int64_t groups = shape_.kv_heads;
  const std::int64_t size = shape_.head_size();
  const std::array<const nn::Linear*, 3> query_key_value{&query_, &key_, &value_};

  const Var packed = linear_group(t, attention_norm_(t, x), query_key_value);
  const Var qkv = rotary(t, packed, heads + groups, size, angles);
  const Var attended = attention(t, {qkv, 0, heads}, {qkv, heads * size, groups},
                                 {qkv, (heads + groups) * size, groups},
                                 {.head_size = size,
                                  .causal = true,
                                  .scale = 1 / std::sqrt(static_cast<double>(size)),
                                  .queries = samples,
                                  .keys = samples});
  const Var middle = output_(t, attended, {.residual = x});
  return feed_forward_(t, mlp_norm_(t, middle), {.residual = middle, .last = true});
}

}  // namespace medvqa::models
