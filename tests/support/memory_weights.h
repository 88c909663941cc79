// Weights drawn by name and kept in memory: norms near one, the rest uniform.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "medvqa/nn/weights.h"
#include "medvqa/quant/nf4.h"

namespace medvqa::testing {

class MemoryWeights : public nn::WeightSource {
 public:
  struct Options {
    DType dtype = DType::f64;  // of dense tensors
    bool nf4 = false;          // quantizable tensors are stored in 4 bits
    bool nested = false;
    double scale = 0.5;
    std::function<double(const std::string&)> factor = {};  // of a tensor's values; none: one
  };
  explicit MemoryWeights(Options options) : options_(options) {}

  bool contains(const std::string&) const override { return true; }
  nn::HostTensor dense(const nn::TensorRequest& request) const override;
  std::optional<nn::HostNf4> nf4(const nn::TensorRequest& request) const override;
  // The values of a tensor as they are stored, rounded to the stored type.
  std::vector<double> values(const nn::TensorRequest& request) const;

 private:
  struct Quantized {
    quant::Nf4Data data;
    quant::NestedAbsmax nested;
  };
  Options options_;
  mutable std::map<std::string, std::vector<std::byte>> dense_;
  mutable std::map<std::string, Quantized> quantized_;
};

}  // namespace medvqa::testing
