#include "medvqa/train/model_tensors.h"

#include <nlohmann/json.hpp>

#include "medvqa/models/model.h"
#include "medvqa/ops/dry_backend.h"

namespace medvqa::train {

std::vector<nn::TensorRequest> model_tensors(const nlohmann::json& config) {
  ops::DryBackend backend({});
  const nn::DescribedWeights source({});
  Arena weights("weights");
  Arena adapters("adapters");
  nn::Builder builder(backend, source, weights, adapters, DType::bf16, {}, nn::QuantizeOnLoad::no);
  models::build_model(config, builder);
  return source.requests();
}

io::LinearSizes linears_of(const std::vector<nn::TensorRequest>& tensors) {
  const std::string suffix = ".weight";
  io::LinearSizes linears;
  for (const nn::TensorRequest& t : tensors) {
    // A convolution is stored with its kernel's axes.
    if (t.role != nn::TensorRole::linear || t.shape.size() != 2) continue;
    if (!t.name.ends_with(suffix)) continue;
    linears[t.name.substr(0, t.name.size() - suffix.size())] = {t.shape[0], t.shape[1]};
  }
  return linears;
}

}  // namespace medvqa::train
