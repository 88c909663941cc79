// Linear layers: the only place that knows 4-bit storage and LoRA.
//
//   y = x W' + bias + s * (x A') B' [+ residual],  then an activation if asked for
//   backward: dx = dy W + v A,  dA += v' x,  dB += s dy' (x A'),  v = s dy B
// W [out, in] is frozen, dense or NF4. A [r, in], B [out, r] are f32 and rounded to the compute
// type for the products; their gradients are f32 and always added to. Hu et al. 2021; Dettmers
// et al. 2023. With dropout the LoRA branch reads dropout(x) (counter-based: repeats on replay).
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "medvqa/autograd/tape.h"
#include "medvqa/nn/builder.h"

namespace medvqa::nn {

struct LoraModule;

struct LinearShape {
  std::int64_t out = 0;
  std::int64_t in = 0;
  bool bias = false;
};

class Linear {
 public:
  // `name` is the module's full name as in transformers 5, without ".weight".
  // A convolution over whole patches is stored with more dimensions: `stored_shape`.
  Linear(Builder& builder, const std::string& name, LinearShape shape, LinearKind kind,
         std::vector<std::int64_t> stored_shape = {});

  std::int64_t out() const { return shape_.out; }
  std::int64_t in() const { return shape_.in; }

  struct Epilogue {
    std::optional<autograd::Var> residual = std::nullopt;  // [T, out], added to y
    ops::Activation activation = ops::Activation::none;
    // The value of this product is not needed in a replay: it is the last of its segment.
    bool last = false;
  };
  autograd::Var operator()(autograd::Tape& t, const autograd::Var& x_TC,
                           const Epilogue& epilogue) const;
  autograd::Var operator()(autograd::Tape& t, const autograd::Var& x_TC) const {
    return (*this)(t, x_TC, Epilogue{});
  }

 private:
  friend autograd::Var linear_group(autograd::Tape& t, const autograd::Var& x_TC,
                                    std::span<const Linear* const> layers);
  struct Forward;
  struct Part;

  Forward begin(autograd::Tape& t, std::int64_t rows, const Epilogue& epilogue) const;
  void base(autograd::Tape& t, const Tensor& x, const Tensor& y, const Forward& saved,
            const Epilogue& epilogue) const;
  bool few_rows(autograd::Tape& t, const Tensor& x, const Tensor& y,
                const Epilogue& epilogue) const;
  ops::Gemm lora_down(autograd::Tape& t, const Tensor& x, const Forward& saved) const;
  void lora_up(autograd::Tape& t, const Tensor& y, const Forward& saved,
               const Epilogue& epilogue) const;
  Forward forward(autograd::Tape& t, const Tensor& x, const Tensor& y,
                  const Epilogue& epilogue) const;
  static void forward_group(autograd::Tape& t, const Tensor& x, std::span<Part> parts);
  void backward(autograd::Tape& t, const autograd::Var& x, const Tensor& dy, const Forward& saved,
                const ops::GradOut& dx) const;
  void backward_lora(autograd::Tape& t, const autograd::Var& x, const Tensor& dy,
                     const Forward& saved, const ops::GradOut& dx) const;
  Tensor weight(ops::Backend& backend, Arena& arena) const;
  bool trainable() const { return lora_ != nullptr; }
  bool drops_out(const autograd::Tape& t) const;
  Tensor lora_input(autograd::Tape& t, const Tensor& x) const;

  LinearShape shape_;
  DType compute_;
  Tensor dense_;                       // [out, in] in the compute type, if not kept as 4-bit
  std::optional<ops::Nf4Weight> nf4_;  // else
  Tensor bias_;
  std::shared_ptr<LoraModule> lora_;
};

// Several layers that read one x: their outputs side by side, [T, sum of out].
autograd::Var linear_group(autograd::Tape& t, const autograd::Var& x_TC,
                           std::span<const Linear* const> layers);

}  // namespace medvqa::nn
