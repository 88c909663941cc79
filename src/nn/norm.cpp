#include "medvqa/nn/norm.h"

namespace medvqa::nn {

RmsNorm::RmsNorm(Builder& builder, const std::string& name, std::int64_t channels, double eps)
    : weight_C_(builder.dense({name + ".weight", {channels}, TensorRole::norm}, {channels})),
      eps_(eps) {}

LayerNorm::LayerNorm(Builder& builder, const std::string& name, std::int64_t channels, double eps)
    : weight_C_(builder.dense({name + ".weight", {channels}, TensorRole::norm}, {channels})),
      bias_C_(builder.dense({name + ".bias", {channels}, TensorRole::bias}, {channels})),
      eps_(eps) {}

}  // namespace medvqa::nn
