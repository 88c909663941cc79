// T tokens, C channels, H query heads, G key/value heads, D head size.
#include "medvqa/models/qwen2_vl/decoder.h"

#include <array>
#include <cmath>

namespace medvqa::models::qwen2_vl {

using autograd::Tape;
using autograd::Var;
using nn::LinearKind;

namespace {
std::int64_t kv_channels(const TextConfig& c) {
  return c.kv_heads * c.head_size();
}
}  // namespace

DecoderBlock::DecoderBlock(nn::Builder& b, const std::string& name, const TextConfig& c)
    : config_(c),
      attention_norm_(b, name + ".input_layernorm", c.channels, c.eps),
      mlp_norm_(b, name + ".post_attention_layernorm", c.channels, c.eps),
      query_(b, name + ".self_attn.q_proj", {c.channels, c.channels, true},
             LinearKind::language_attention),
      key_(b, name + ".self_attn.k_proj", {kv_channels(c), c.channels, true},
           LinearKind::language_attention),
      value_(b, name + ".self_attn.v_proj", {kv_channels(c), c.channels, true},
             LinearKind::language_attention),
      output_(b, name + ".self_attn.o_proj", {c.channels, c.channels, false},
              LinearKind::language_attention),
      gate_(b, name + ".mlp.gate_proj", {c.feed_forward, c.channels, false},
            LinearKind::language_mlp),
      up_(b, name + ".mlp.up_proj", {c.feed_forward, c.channels, false}, LinearKind::language_mlp),
      down_(b, name + ".mlp.down_proj", {c.channels, c.feed_forward, false},
            LinearKind::language_mlp) {}

Var DecoderBlock::forward(Tape& t, const Var& x, const autograd::RotaryAngles& angles,
                          const autograd::Segments& samples) const {
  const std::int64_t heads = config_.heads;
  const std::int64_t groups = config_.kv_heads;
  const std::int64_t size = config_.head_size();
  const std::array<const nn::Linear*, 3> query_key_value{&query_, &key_, &value_};
  const std::array<const nn::Linear*, 2> gate_up{&gate_, &up_};

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
  const Var wide = swiglu(t, linear_group(t, mlp_norm_(t, middle), gate_up));
  return down_(t, wide, {.residual = middle, .last = true});
}

}  // namespace medvqa::models::qwen2_vl
