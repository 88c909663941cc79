// P patches, C channels.
#include "medvqa/models/qwen2_5_vl/vision.h"

#include <algorithm>
#include <utility>

namespace medvqa::models::qwen2_5_vl {

using autograd::Segments;
using autograd::SegmentTape;
using autograd::StepVar;
using autograd::Tape;
using autograd::Var;
using Indices = std::vector<std::int32_t>;

namespace {

// The windows of a frame of rows x columns merged patches, the first of them number `first`.
void append_frame(WindowOrder& order, std::int64_t first, std::int64_t rows, std::int64_t columns,
                  std::int64_t window, std::int64_t unit) {
  for (std::int64_t top = 0; top < rows; top += window) {
    for (std::int64_t left = 0; left < columns; left += window) {
      const std::int64_t height = std::min(window, rows - top);
      const std::int64_t width = std::min(window, columns - left);
      for (std::int64_t i = 0; i < height * width; ++i) {
        const std::int64_t place = (top + i / width) * columns + left + i % width;
        order.merged.push_back(static_cast<std::int32_t>(first + place));
      }
      order.boundaries.push_back(order.boundaries.back() +
                                 static_cast<std::int32_t>(height * width * unit));
    }
  }
}

// Patch by patch, [P].
Indices patches_of(const Indices& merged, std::int64_t unit) {
  Indices patches;
  patches.reserve(merged.size() * static_cast<std::size_t>(unit));
  for (const std::int32_t m : merged) {
    for (std::int64_t i = 0; i < unit; ++i) {
      patches.push_back(static_cast<std::int32_t>(m * unit + i));
    }
  }
  return patches;
}

Indices inverse(const Indices& order) {
  Indices places(order.size());
  for (std::size_t i = 0; i < order.size(); ++i) {
    places[static_cast<std::size_t>(order[i])] = static_cast<std::int32_t>(i);
  }
  return places;
}

Indices chosen(const Indices& values, const Indices& places) {
  Indices result;
  result.reserve(places.size());
  for (const std::int32_t p : places) result.push_back(values[static_cast<std::size_t>(p)]);
  return result;
}

Tensor upload_indices(SegmentTape& tape, const Indices& values) {
  return upload(tape, std::span<const std::int32_t>(values),
                {static_cast<std::int64_t>(values.size())});
}

// Memory for a window a merged patch and for whole windows, however the images are cut: a plan
// finds its largest batch by patches and frames, not by the shapes of images.
Segments window_segments(SegmentTape& tape, const WindowOrder& order, std::int64_t longest) {
  const Tensor room =
      tape.step_arena().allocate({static_cast<std::int64_t>(order.merged.size()) + 1}, DType::i32);
  const auto count = static_cast<std::int64_t>(order.boundaries.size());
  const Tensor boundaries(room.data, DType::i32, {count});
  tape.backend().upload(order.boundaries.data(), boundaries.bytes(), boundaries);
  return {boundaries, longest};
}

}  // namespace

WindowOrder window_order(const std::vector<PatchGrid>& grids, std::int64_t window,
                         std::int64_t merge) {
  WindowOrder order{{}, {0}};
  for (const PatchGrid& g : grids) {
    for (std::int64_t t = 0; t < g.t; ++t) {
      append_frame(order, static_cast<std::int64_t>(order.merged.size()), g.h / merge, g.w / merge,
                   window, merge * merge);
    }
  }
  return order;
}

VisionBlock::VisionBlock(nn::Builder& b, const std::string& name, const qwen2_vl::VisionConfig& c)
    : name_(name),
      norm1_(b, name + ".norm1", c.channels, qwen2_vl::kVisionEps),
      norm2_(b, name + ".norm2", c.channels, qwen2_vl::kVisionEps),
      attention_(b, name + ".attn", c),
      feed_forward_(b, name + ".mlp", c.channels, c.feed_forward, true,
                    nn::LinearKind::vision_mlp) {}

Var VisionBlock::forward(Tape& t, const Var& x, const autograd::RotaryAngles& angles,
                         const Segments& windows) const {
  const Var middle = attention_(t, norm1_(t, x), x, angles, windows);
  return feed_forward_(t, norm2_(t, middle), {.residual = middle, .last = true});
}

VisionTower::VisionTower(nn::Builder& b, const std::string& name, const Config& c)
    : name_(name),
      config_(c),
      patch_embedding_(qwen2_vl::patch_embedding(b, name + ".patch_embed.proj", c.vision)),
      norm_([&] {
        for (std::int64_t i = 0; i < c.vision.depth; ++i) {
          blocks_.emplace_back(b, name + ".blocks." + std::to_string(i), c.vision);
        }
        return nn::RmsNorm(b, name + ".merger.ln_q", c.vision.channels, qwen2_vl::kVisionEps);
      }()),
      merger_(b, name + ".merger", c.vision, c.text.channels) {}

StepVar VisionTower::forward(SegmentTape& tape, const PackedInput& input, DType compute) const {
  const qwen2_vl::VisionConfig& c = config_.vision;
  const std::int64_t unit = c.merge_size * c.merge_size;
  const WindowOrder order = window_order(input.grids, config_.window, c.merge_size);
  const Indices patches = patches_of(order.merged, unit);
  auto positions = qwen2_vl::patch_positions(input.grids, c.merge_size);
  for (Indices& axis : positions) axis = chosen(axis, patches);
  const auto angles = qwen2_vl::patch_angles(tape, positions, c);
  const Segments frames = segments(tape, qwen2_vl::frame_boundaries(input.grids));
  const Segments windows = window_segments(
      tape, order, std::min(frames.longest, config_.window * config_.window * unit));

  const Tensor to_windows = upload_indices(tape, patches);
  const Tensor to_images = upload_indices(tape, inverse(order.merged));
  StepVar pixels = upload_patches(tape, input, c.patch_columns(), compute);
  StepVar x = tape.run(name_ + ".patch_embed", {std::move(pixels)},
                       [this, to_windows](Tape& t, std::span<const Var> in) {
                         return gather_rows(t, patch_embedding_(t, in[0], {.joins_residual = true}),
                                            to_windows);
                       });
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    const VisionBlock& block = blocks_[i];
    const Segments seen = config_.windowed[i] ? windows : frames;
    x = tape.run(block.name(), {x}, [&block, angles, seen](Tape& t, std::span<const Var> in) {
      return block.forward(t, in[0], angles, seen);
    });
  }
  x = tape.run(merger_.name(), {x}, [this](Tape& t, std::span<const Var> in) {
    return merger_.forward(t, norm_(t, in[0]));
  });
  return tape.run(
      merger_.name() + ", in reading order", {x},
      [to_images](Tape& t, std::span<const Var> in) { return gather_rows(t, in[0], to_images); });
}

}  // namespace medvqa::models::qwen2_5_vl
