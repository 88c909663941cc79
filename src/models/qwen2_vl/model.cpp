#include "medvqa/models/qwen2_vl/model.h"

#include "medvqa/models/frequencies.h"
#include "medvqa/models/mrope.h"

namespace medvqa::models::qwen2_vl {

using autograd::SegmentTape;
using autograd::StepVar;
using autograd::Tape;
using autograd::Var;

Qwen2Vl::Qwen2Vl(const Config& c, nn::Builder& b)
    : config_(c),
      compute_(b.compute()),
      vision_(b, "model.visual", c.vision, c.text.channels),
      embedding_VC_(b.dense({"model.language_model.embed_tokens.weight",
                             {c.text.vocabulary, c.text.channels},
                             nn::TensorRole::embedding},
                            {c.text.vocabulary, c.text.channels})),
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
  const Tensor ids = upload(tape, std::span<const std::int32_t>(input.ids), {input.tokens()});
  const Tensor text = tape.step_arena().allocate({input.tokens(), config_.text.channels}, compute_);
  tape.backend().gather_rows(embedding_VC_, ids, text);
  if (input.grids.empty()) return tape.input(text);

  std::vector<std::int32_t> rows;
  for (std::size_t i = 0; i < input.ids.size(); ++i) {
    if (input.ids[i] == config_.image_token_id) rows.push_back(static_cast<std::int32_t>(i));
  }
  const Tensor image_rows =
      upload(tape, std::span<const std::int32_t>(rows), {static_cast<std::int64_t>(rows.size())});
  const StepVar features = vision_.forward(tape, input, compute_);
  return tape.run({features}, [text, image_rows](Tape& t, std::span<const Var> in) {
    return splice(t, text, in[0], image_rows);
  });
}

StepVar Qwen2Vl::forward(SegmentTape& tape, const PackedInput& input) const {
  const std::int64_t size = config_.text.head_size();
  std::vector<std::int32_t> axis;
  for (std::size_t a = 0; a < 3; ++a) {
    axis.insert(axis.end(), static_cast<std::size_t>(config_.text.mrope_section[a]),
                static_cast<std::int32_t>(a));
  }
  const auto angles =
      rotary_angles(tape, mrope_positions(input, config_.image_token_id, config_.vision.merge_size),
                    inverse_frequencies(config_.text.rope_theta, size), axis);
  const auto samples = segments(tape, input.cu_seqlens);
  StepVar x = embed(tape, input);
  for (const DecoderBlock& block : blocks_) {
    x = tape.run({x}, [&block, angles, samples](Tape& t, std::span<const Var> in) {
      return block.forward(t, in[0], angles, samples);
    });
  }
  return x;
}

}  // namespace medvqa::models::qwen2_vl
