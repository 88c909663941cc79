// What the trainer needs of an architecture: forward only. Gradients, recomputation, memory, 4-bit
// storage and LoRA are other rooms' business.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "medvqa/autograd/segment_tape.h"
#include "medvqa/models/input.h"
#include "medvqa/nn/builder.h"

namespace medvqa::models {

class Model {
 public:
  virtual ~Model() = default;

  // The last block's output [T, C], before the final norm.
  virtual autograd::StepVar forward(autograd::SegmentTape& tape,
                                    const PackedInput& input) const = 0;
  // The norm before the head, on any choice of rows.
  virtual autograd::Var final_norm(autograd::Tape& tape, const autograd::Var& x) const = 0;
  // What nn::Builder::head() gave for it: [V, C] in the compute type, the embedding itself where
  // they are tied, or fewer rows that are trained.
  virtual const Tensor& head_weight() const = 0;
};

// Builds the architecture that `config` ("model_type", in the form of io/model_config.h) names.
// UserError(ExitCode::model) for one this program does not know, or impossible values.
std::unique_ptr<Model> build_model(const nlohmann::json& config, nn::Builder& builder);

// Positions of every token as that architecture's decoder sees them, from the configuration alone:
// one axis, or the three of M-RoPE; axis-major [A][T].
std::vector<std::vector<std::int32_t>> token_positions(const nlohmann::json& config,
                                                       const PackedInput& input);

// The sample that asks for the most memory: `tokens` tokens, as many of them as possible the
// placeholders of one image of at most `max_pixels` pixels; `samples` of them packed. No patches.
PackedInput largest_input(const nlohmann::json& config, std::int64_t tokens,
                          std::int64_t max_pixels, std::int64_t samples);

// Columns of a row of PackedInput::patches.
std::int64_t patch_columns(const nlohmann::json& config);

}  // namespace medvqa::models
