// Normalisations with their frozen weights.
#pragma once

#include <string>

#include "medvqa/autograd/functions.h"
#include "medvqa/nn/builder.h"

namespace medvqa::nn {

class RmsNorm {
 public:
  RmsNorm(Builder& builder, const std::string& name, std::int64_t channels, double eps);
  autograd::Var operator()(autograd::Tape& t, const autograd::Var& x_TC) const {
    return autograd::rms_norm(t, x_TC, weight_C_, eps_);
  }

 private:
  Tensor weight_C_;
  double eps_;
};

class LayerNorm {
 public:
  LayerNorm(Builder& builder, const std::string& name, std::int64_t channels, double eps);
  autograd::Var operator()(autograd::Tape& t, const autograd::Var& x_TC) const {
    return autograd::layer_norm(t, x_TC, weight_C_, bias_C_, eps_);
  }

 private:
  Tensor weight_C_, bias_C_;
  double eps_;
};

}  // namespace medvqa::nn
