// LLaMA 3: decoder blocks between an embedding and a head. Grattafiori et al. 2024.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "medvqa/models/decoder_config.h"
#include "medvqa/models/model.h"
#include "medvqa/nn/embedding.h"

namespace medvqa::models::llama {

struct Config : DecoderConfig {
  bool tied_head = false;
};

// From config.json in its nested form, keys and defaults as transformers' LlamaConfig has them.
// UserError(ExitCode::model) names the key, what was found and what was expected.
Config read_config(const nlohmann::json& config);

class Llama final : public Model {
 public:
  Llama(const Config& config, nn::Builder& builder);

  autograd::StepVar forward(autograd::SegmentTape& tape, const PackedInput& input) const override;
  autograd::Var final_norm(autograd::Tape& tape, const autograd::Var& x) const override {
    return norm_(tape, x);
  }
  const Tensor& head_weight() const override { return head_VC_; }

 private:
  Config config_;
  nn::Embedding embedding_;
  std::vector<DecoderBlock> blocks_;
  nn::RmsNorm norm_;
  Tensor head_VC_;
};

PackedInput largest_sample(std::int64_t tokens);

}  // namespace medvqa::models::llama
