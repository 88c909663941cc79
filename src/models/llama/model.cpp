// T tokens, C channels, V vocabulary.
#include "medvqa/models/llama/model.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "medvqa/models/upload.h"

namespace medvqa::models::llama {

using autograd::SegmentTape;
using autograd::StepVar;
using autograd::Tape;
using autograd::Var;

Config read_config(const nlohmann::json& json) {
  const ConfigReader root(json, "");
  const ConfigReader r = root.section("text_config");
  Config c;
  c.rope_theta = 1e4;
  read_decoder(r, c);
  c.tied_head = root.boolean("tie_word_embeddings", false);
  for (const char* bias : {"attention_bias", "mlp_bias"}) {
    if (r.boolean(bias, false)) r.refuse(bias, "true", "false: such biases are not built in");
  }
  return c;
}

namespace {

nn::TensorRequest embedding_of(const Config& c) {
  return {"model.embed_tokens.weight", {c.vocabulary, c.channels}, nn::TensorRole::embedding};
}

}  // namespace

Llama::Llama(const Config& c, nn::Builder& b)
    : config_(c),
      embedding_(b, embedding_of(c), c.tied_head && b.whole_head()),
      norm_([&] {
        for (std::int64_t i = 0; i < c.layers; ++i) {
          blocks_.emplace_back(b, "model.layers." + std::to_string(i), c);
        }
        return nn::RmsNorm(b, "model.norm", c.channels, c.eps);
      }()),
      head_VC_(c.tied_head ? b.head(embedding_of(c), embedding_.table())
                           : b.head({"lm_head.weight", {c.vocabulary, c.channels}})) {}

StepVar Llama::forward(SegmentTape& tape, const PackedInput& input) const {
  const std::vector<float> frequencies = rotary_frequencies(config_);
  const std::vector<std::int32_t> axis(frequencies.size(), 0);
  const std::vector<std::vector<std::int32_t>> places{sequential_positions(input)};
  const auto angles = rotary_angles(tape, places, frequencies, axis);
  const auto samples = segments(tape, input.cu_seqlens);
  StepVar x = embedding_(tape, input.ids);
  for (const DecoderBlock& block : blocks_) {
    x = tape.run(block.name(), {x}, [&block, angles, samples](Tape& t, std::span<const Var> in) {
      return block.forward(t, in[0], angles, samples);
    });
  }
  return x;
}

PackedInput largest_sample(std::int64_t tokens) {
  PackedInput input;
  input.ids.assign(static_cast<std::size_t>(std::max<std::int64_t>(tokens, 2)), 0);
  // Not an answer's token, unlike all others: a prompt has at least one.
  input.ids.front() = 1;
  input.cu_seqlens = {0, static_cast<std::int32_t>(input.ids.size())};
  return input;
}

}  // namespace medvqa::models::llama
