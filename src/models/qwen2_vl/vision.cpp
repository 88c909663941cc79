// P patches, C channels, H heads, D head size.
#include "medvqa/models/qwen2_vl/vision.h"

#include <cmath>

#include "medvqa/models/frequencies.h"

namespace medvqa::models::qwen2_vl {

using autograd::SegmentTape;
using autograd::StepVar;
using autograd::Tape;
using autograd::Var;
using nn::LinearKind;

namespace {

constexpr double kVisionEps = 1e-6;
constexpr double kVisionTheta = 10000.0;

// Attention stays inside one frame of one image.
std::vector<std::int32_t> frame_boundaries(const std::vector<PatchGrid>& grids) {
  std::vector<std::int32_t> cu{0};
  for (const PatchGrid& g : grids) {
    for (std::int64_t t = 0; t < g.t; ++t) {
      cu.push_back(cu.back() + static_cast<std::int32_t>(g.h * g.w));
    }
  }
  return cu;
}

std::vector<std::int64_t> patch_shape(const VisionConfig& c) {
  return {c.channels, c.in_channels, c.temporal_patch_size, c.patch_size, c.patch_size};
}

}  // namespace

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

VisionBlock::VisionBlock(nn::Builder& b, const std::string& name, const VisionConfig& c)
    : config_(c),
      norm1_(b, name + ".norm1", c.channels, kVisionEps),
      norm2_(b, name + ".norm2", c.channels, kVisionEps),
      qkv_(b, name + ".attn.qkv", {3 * c.channels, c.channels, true}, LinearKind::vision_attention),
      proj_(b, name + ".attn.proj", {c.channels, c.channels, true}, LinearKind::vision_attention),
      fc1_(b, name + ".mlp.fc1", {c.feed_forward, c.channels, true}, LinearKind::vision_mlp),
      fc2_(b, name + ".mlp.fc2", {c.channels, c.feed_forward, true}, LinearKind::vision_mlp) {}

Var VisionBlock::forward(Tape& t, const Var& x, const autograd::RotaryAngles& angles,
                         const autograd::Segments& frames) const {
  const std::int64_t heads = config_.heads;
  const std::int64_t size = config_.head_size();
  const Var qkv = rotary(t, qkv_(t, norm1_(t, x)), 2 * heads, size, angles);
  const Var attended =
      attention(t, {qkv, 0, heads}, {qkv, heads * size, heads}, {qkv, 2 * heads * size, heads},
                {.head_size = size,
                 .causal = false,
                 .scale = 1 / std::sqrt(static_cast<double>(size)),
                 .queries = frames,
                 .keys = frames});
  const Var middle = proj_(t, attended, {.residual = x});
  const Var wide = fc1_(t, norm2_(t, middle), {.activation = ops::Activation::quick_gelu});
  return fc2_(t, wide, {.residual = middle, .last = true});
}

Merger::Merger(nn::Builder& b, const std::string& name, const VisionConfig& c,
               std::int64_t out_channels)
    : wide_(c.channels * c.merge_size * c.merge_size),
      norm_(b, name + ".ln_q", c.channels, kVisionEps),
      first_(b, name + ".mlp.0", {wide_, wide_, true}, LinearKind::other),
      second_(b, name + ".mlp.2", {out_channels, wide_, true}, LinearKind::other) {}

Var Merger::forward(Tape& t, const Var& x) const {
  const Var normed = norm_(t, x);
  const Var blocks = t.view(normed, {x.value.elements() / wide_, wide_});
  const Var wide = first_(t, blocks, {.activation = ops::Activation::gelu_erf});
  return second_(t, wide, {.last = true});
}

VisionTower::VisionTower(nn::Builder& b, const std::string& name, const VisionConfig& c,
                         std::int64_t out_channels)
    : config_(c),
      patch_embedding_(b, name + ".patch_embed.proj", {c.channels, c.patch_columns(), false},
                       LinearKind::other, patch_shape(c)),
      merger_([&] {
        for (std::int64_t i = 0; i < c.depth; ++i) {
          blocks_.emplace_back(b, name + ".blocks." + std::to_string(i), c);
        }
        return Merger(b, name + ".merger", c, out_channels);
      }()) {}

StepVar VisionTower::forward(SegmentTape& tape, const PackedInput& input, DType compute) const {
  // The first half of a head's pairs turns with the row, the second with the column.
  const std::vector<float> half = inverse_frequencies(kVisionTheta, config_.head_size() / 2);
  std::vector<float> inv_freq(half);
  inv_freq.insert(inv_freq.end(), half.begin(), half.end());
  std::vector<std::int32_t> axis(half.size(), 0);
  axis.resize(inv_freq.size(), 1);
  const auto positions = patch_positions(input.grids, config_.merge_size);
  const auto angles = rotary_angles(tape, positions, inv_freq, axis);
  const auto frames = segments(tape, frame_boundaries(input.grids));

  const Tensor pixels = upload_patches(tape, input, config_.patch_columns(), compute);
  StepVar x = tape.run({tape.input(pixels)}, [this](Tape& t, std::span<const Var> in) {
    return patch_embedding_(t, in[0]);
  });
  for (const VisionBlock& block : blocks_) {
    x = tape.run({x}, [&block, angles, frames](Tape& t, std::span<const Var> in) {
      return block.forward(t, in[0], angles, frames);
    });
  }
  return tape.run({x},
                  [this](Tape& t, std::span<const Var> in) { return merger_.forward(t, in[0]); });
}

}  // namespace medvqa::models::qwen2_vl
