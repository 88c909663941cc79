#include "medvqa/models/qwen2_vl/model.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "medvqa/models/frequencies.h"
#include "medvqa/models/mrope.h"

namespace medvqa::models::qwen2_vl {

using autograd::SegmentTape;
using autograd::StepVar;
using autograd::Tape;
using autograd::Var;

Qwen2Vl::Qwen2Vl(const Config& c, std::unique_ptr<ImageTower> vision, nn::Builder& b)
    : config_(c),
      compute_(b.compute()),
      vision_(std::move(vision)),
      embedding_(b,
                 {"model.language_model.embed_tokens.weight",
                  {c.text.vocabulary, c.text.channels},
                  nn::TensorRole::embedding},
                 c.tied_head),
      norm_([&] {
        for (std::int64_t i = 0; i < c.text.layers; ++i) {
          blocks_.emplace_back(b, "model.language_model.layers." + std::to_string(i), c.text);
        }
        return nn::RmsNorm(b, "model.language_model.norm", c.text.channels, c.text.eps);
      }()) {
  if (c.tied_head) return;
  const Shape shape{c.text.vocabulary, c.text.channels};
  head_VC_ = b.dense({"lm_head.weight", {shape.dim(0), shape.dim(1)}}, shape);
}

StepVar Qwen2Vl::embed(SegmentTape& tape, const PackedInput& input) const {
  if (input.grids.empty()) return embedding_(tape, input.ids);

  std::vector<std::int32_t> rows;
  for (std::size_t i = 0; i < input.ids.size(); ++i) {
    if (input.ids[i] == config_.image_token_id) rows.push_back(static_cast<std::int32_t>(i));
  }
  const Tensor image_rows =
      upload(tape, std::span<const std::int32_t>(rows), {static_cast<std::int64_t>(rows.size())});
  const StepVar features = vision_->forward(tape, input, compute_);
  StepVar text = embedding_(tape, input.ids);
  return tape.run("model.language_model.embed_tokens, with image features", {text, features},
                  [image_rows](Tape& t, std::span<const Var> in) {
                    return splice(t, in[0].value, in[1], image_rows);
                  });
}

StepVar Qwen2Vl::forward(SegmentTape& tape, const PackedInput& input) const {
  const std::int64_t size = config_.text.head_size();
  std::vector<std::int32_t> axis;
  for (std::size_t a = 0; a < 3; ++a) {
    axis.insert(axis.end(), static_cast<std::size_t>(config_.text.mrope_section[a]),
                static_cast<std::int32_t>(a));
  }
  const auto angles = rotary_angles(tape, positions(config_, input),
                                    inverse_frequencies(config_.text.rope_theta, size), axis);
  const auto samples = segments(tape, input.cu_seqlens);
  StepVar x = embed(tape, input);
  for (const DecoderBlock& block : blocks_) {
    x = tape.run(block.name(), {x}, [&block, angles, samples](Tape& t, std::span<const Var> in) {
      return block.forward(t, in[0], angles, samples);
    });
  }
  return x;
}

std::vector<std::vector<std::int32_t>> positions(const Config& c, const PackedInput& input) {
  return mrope_positions(input, c.image_token_id, c.vision.merge_size);
}

// Tokens of a sample that are never an image's: markers, roles, a question and an answer.
constexpr std::int64_t kFewestTextTokens = 32;

PackedInput largest_sample(const Config& c, std::int64_t tokens, std::int64_t max_pixels) {
  const std::int64_t merge = c.vision.merge_size;
  const std::int64_t side = c.vision.patch_size * merge;
  const std::int64_t budget =
      std::max<std::int64_t>(1, std::min(max_pixels / (side * side), tokens - kFewestTextTokens));
  const auto rows = static_cast<std::int64_t>(std::sqrt(static_cast<double>(budget)));
  const PatchGrid grid{1, rows * merge, budget / rows * merge};
  const std::int64_t image_tokens = grid.patches() / (merge * merge);
  PackedInput input;
  input.ids.assign(static_cast<std::size_t>(image_tokens), c.image_token_id);
  const std::int32_t text = c.image_token_id == 0 ? 1 : 0;
  input.ids.resize(static_cast<std::size_t>(std::max(tokens, image_tokens + 1)), text);
  input.cu_seqlens = {0, static_cast<std::int32_t>(input.ids.size())};
  input.grids = {grid};
  input.patch_rows = grid.patches();
  return input;
}

}  // namespace medvqa::models::qwen2_vl
