#include "medvqa/models/mllama/model.h"

#include <algorithm>

namespace medvqa::models::mllama {

using autograd::SegmentTape;
using autograd::StepVar;
using autograd::Tape;
using autograd::Var;

Mllama::Mllama(const Config& c, nn::Builder& b)
    : config_(c),
      compute_(b.compute()),
      vision_(b, "model.vision_model", c.vision),
      embedding_(b, {"model.language_model.embed_tokens.weight",
                     {c.text.vocabulary + kExtraRows, c.text.channels},
                     nn::TensorRole::embedding}),
      head_VC_(b.dense({"lm_head.weight", {c.text.vocabulary, c.text.channels}},
                       {c.text.vocabulary, c.text.channels})),
      norm_([&] {
        for (std::int64_t i = 0; i < c.text.layers; ++i) {
          const std::string name = "model.language_model.layers." + std::to_string(i);
          if (c.text.is_cross(i)) {
            blocks_.emplace_back(std::in_place_type<CrossBlock>, b, name, c.text);
          } else {
            blocks_.emplace_back(std::in_place_type<DecoderBlock>, b, name, c.text);
          }
        }
        return nn::RmsNorm(b, "model.language_model.norm", c.text.channels, c.text.eps);
      }()),
      projector_(b, "model.multi_modal_projector", {c.text.channels, c.vision.out_channels(), true},
                 nn::LinearKind::other) {}

StepVar Mllama::see(SegmentTape& tape, const PackedInput& input, CrossRows& rows) const {
  const std::vector<ImageRows> images = image_rows(input.grids, config_.vision);
  const CrossLayout layout = cross_layout(input, images, config_);
  rows.parts = attention_parts(tape, layout.parts);
  rows.feed_forward_T = upload_factors(tape, layout.feed_forward, compute_);
  return vision_.forward(tape, input, images, layout.key_rows, projector_, compute_);
}

StepVar Mllama::forward(SegmentTape& tape, const PackedInput& input) const {
  const TextConfig& c = config_.text;
  const std::vector<float> frequencies = rotary_frequencies(c);
  const std::vector<std::int32_t> axis(frequencies.size(), 0);
  const std::vector<std::vector<std::int32_t>> places{sequential_positions(input)};
  const auto angles = rotary_angles(tape, places, frequencies, axis);
  const auto samples = segments(tape, input.cu_seqlens);
  // Without any picture the reference skips the cross-attention blocks.
  const bool has_images = !input.grids.empty();
  CrossRows rows;
  StepVar states;
  if (has_images) states = see(tape, input, rows);
  StepVar x = embedding_(tape, input.ids);
  for (const auto& block : blocks_) {
    if (const auto* own = std::get_if<DecoderBlock>(&block)) {
      x = tape.run(own->name(), {x}, [own, angles, samples](Tape& t, std::span<const Var> in) {
        return own->forward(t, in[0], angles, samples);
      });
    } else if (has_images) {
      const auto* cross = &std::get<CrossBlock>(block);
      x = tape.run(cross->name(), {x, states}, [cross, rows](Tape& t, std::span<const Var> in) {
        return cross->forward(t, in[0], in[1], rows);
      });
    }
  }
  return x;
}

PackedInput largest_sample(const Config& config, std::int64_t tokens, std::int64_t max_pixels) {
  const VisionConfig& v = config.vision;
  const std::int64_t most = std::max<std::int64_t>(1, max_pixels / (v.image_size * v.image_size));
  std::pair<std::int64_t, std::int64_t> chosen{1, 1};
  for (const auto& ratio : v.ratios) {
    const std::int64_t tiles = ratio.first * ratio.second;
    if (tiles <= most && tiles > chosen.first * chosen.second) chosen = ratio;
  }
  PackedInput input;
  input.ids.assign(static_cast<std::size_t>(std::max<std::int64_t>(tokens, 2)),
                   config.image_token_id == 0 ? 1 : 0);
  input.ids.front() = config.image_token_id;
  input.cu_seqlens = {0, static_cast<std::int32_t>(input.ids.size())};
  input.grids = {{1, chosen.first * v.patches_a_side(), chosen.second * v.patches_a_side()}};
  input.patch_rows = input.grids.front().patches();
  return input;
}

}  // namespace medvqa::models::mllama
