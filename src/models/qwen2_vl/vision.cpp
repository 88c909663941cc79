// P patches, C channels, H heads, D head size.
#include "medvqa/models/qwen2_vl/vision.h"

#include <cmath>
#include <utility>

#include "medvqa/models/frequencies.h"

namespace medvqa::models::qwen2_vl {

using autograd::SegmentTape;
using autograd::StepVar;
using autograd::Tape;
using autograd::Var;
using nn::LinearKind;

std::vector<std::int32_t> frame_boundaries(const std::vector<PatchGrid>& grids) {
  std::vector<std::int32_t> cu{0};
  for (const PatchGrid& g : grids) {
    for (std::int64_t t = 0; t < g.t; ++t) {
      cu.push_back(cu.back() + static_cast<std::int32_t>(g.h * g.w));
    }
  }
  return cu;
}

std::vector<std::vector<std::int32_t>> patch_positions(const std::vector<PatchGrid>& grids,
                                                       std::int64_t merge) {
  std::vector<std::vector<std::int32_t>> axes(2);
  for (const PatchGrid& g : grids) {
    for (std::int64_t t = 0; t < g.t; ++t) {
      for (std::int64_t top = 0; top < g.h; top += merge) {
        for (std::int64_t left = 0; left < g.w; left += merge) {
          for (std::int64_t i = 0; i < merge * merge; ++i) {
            axes[0].push_back(static_cast<std::int32_t>(top + i / merge));
            axes[1].push_back(static_cast<std::int32_t>(left + i % merge));
          }
        }
      }
    }
  }
  return axes;
}

autograd::RotaryAngles patch_angles(SegmentTape& tape,
                                    std::span<const std::vector<std::int32_t>> positions,
                                    const VisionConfig& c) {
  const std::vector<float> half = inverse_frequencies(c.rope_theta, c.head_size() / 2);
  std::vector<float> inv_freq(half);
  inv_freq.insert(inv_freq.end(), half.begin(), half.end());
  std::vector<std::int32_t> axis(half.size(), 0);
  axis.resize(inv_freq.size(), 1);
  return rotary_angles(tape, positions, inv_freq, axis);
}

nn::Linear patch_embedding(nn::Builder& b, const std::string& name, const VisionConfig& c) {
  return {b,
          name,
          {c.channels, c.patch_columns(), false},
          LinearKind::other,
          {c.channels, c.in_channels, c.temporal_patch_size, c.patch_size, c.patch_size}};
}

VisionAttention::VisionAttention(nn::Builder& b, const std::string& name, const VisionConfig& c)
    : heads_(c.heads),
      head_size_(c.head_size()),
      qkv_(b, name + ".qkv", {3 * c.channels, c.channels, true}, LinearKind::vision_attention),
      proj_(b, name + ".proj", {c.channels, c.channels, true}, LinearKind::vision_attention) {}

Var VisionAttention::operator()(Tape& t, const Var& normed, const Var& x,
                                const autograd::RotaryAngles& angles,
                                const autograd::Segments& segments) const {
  const std::int64_t width = heads_ * head_size_;
  const Var qkv = rotary(t, qkv_(t, normed), 2 * heads_, head_size_, angles);
  const Var attended =
      attention(t, {qkv, 0, heads_}, {qkv, width, heads_}, {qkv, 2 * width, heads_},
                {.head_size = head_size_,
                 .causal = false,
                 .scale = 1 / std::sqrt(static_cast<double>(head_size_)),
                 .queries = segments,
                 .keys = segments});
  return proj_(t, attended, {.residual = x});
}

VisionBlock::VisionBlock(nn::Builder& b, const std::string& name, const VisionConfig& c)
    : name_(name),
      norm1_(b, name + ".norm1", c.channels, kVisionEps),
      norm2_(b, name + ".norm2", c.channels, kVisionEps),
      attention_(b, name + ".attn", c),
      fc1_(b, name + ".mlp.fc1", {c.feed_forward, c.channels, true}, LinearKind::vision_mlp),
      fc2_(b, name + ".mlp.fc2", {c.channels, c.feed_forward, true}, LinearKind::vision_mlp) {}

Var VisionBlock::forward(Tape& t, const Var& x, const autograd::RotaryAngles& angles,
                         const autograd::Segments& frames) const {
  const Var middle = attention_(t, norm1_(t, x), x, angles, frames);
  const Var wide = fc1_(t, norm2_(t, middle), {.activation = ops::Activation::quick_gelu});
  return fc2_(t, wide, {.residual = middle, .last = true});
}

Merger::Merger(nn::Builder& b, const std::string& name, const VisionConfig& c,
               std::int64_t out_channels)
    : name_(name),
      wide_(c.channels * c.merge_size * c.merge_size),
      first_(b, name + ".mlp.0", {wide_, wide_, true}, LinearKind::other),
      second_(b, name + ".mlp.2", {out_channels, wide_, true}, LinearKind::other) {}

Var Merger::forward(Tape& t, const Var& normed) const {
  const Var blocks = t.view(normed, {normed.value.elements() / wide_, wide_});
  const Var wide = first_(t, blocks, {.activation = ops::Activation::gelu_erf});
  return second_(t, wide, {.last = true, .joins_residual = true});
}

VisionTower::VisionTower(nn::Builder& b, const std::string& name, const Config& c)
    : name_(name),
      config_(c.vision),
      patch_embedding_(patch_embedding(b, name + ".patch_embed.proj", c.vision)),
      norm_([&] {
        for (std::int64_t i = 0; i < c.vision.depth; ++i) {
          blocks_.emplace_back(b, name + ".blocks." + std::to_string(i), c.vision);
        }
        return nn::LayerNorm(b, name + ".merger.ln_q", c.vision.channels, kVisionEps);
      }()),
      merger_(b, name + ".merger", c.vision, c.text.channels) {}

StepVar VisionTower::forward(SegmentTape& tape, const PackedInput& input, DType compute) const {
  const auto angles = patch_angles(tape, patch_positions(input.grids, config_.merge_size), config_);
  const auto frames = segments(tape, frame_boundaries(input.grids));

  StepVar pixels = upload_patches(tape, input, config_.patch_columns(), compute);
  StepVar x = tape.run(name_ + ".patch_embed", {std::move(pixels)},
                       [this](Tape& t, std::span<const Var> in) {
                         return patch_embedding_(t, in[0], {.joins_residual = true});
                       });
  for (const VisionBlock& block : blocks_) {
    x = tape.run(block.name(), {x}, [&block, angles, frames](Tape& t, std::span<const Var> in) {
      return block.forward(t, in[0], angles, frames);
    });
  }
  return tape.run(merger_.name(), {x}, [this](Tape& t, std::span<const Var> in) {
    return merger_.forward(t, norm_(t, in[0]));
  });
}

}  // namespace medvqa::models::qwen2_vl
