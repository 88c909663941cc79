// The tensors of an architecture, without a checkpoint.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "medvqa/io/peft_adapter.h"
#include "medvqa/nn/weights.h"

namespace medvqa::train {

// Every tensor the architecture asks for, in its order. `config` is in the form of
// io/model_config.h.
std::vector<nn::TensorRequest> model_tensors(const nlohmann::json& config);

// Of these the matrices of linears, which can have an adapter: [out, in] by module.
io::LinearSizes linears_of(const std::vector<nn::TensorRequest>& tensors);

}  // namespace medvqa::train
