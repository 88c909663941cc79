// Linear layers: the only place that knows 4-bit storage and LoRA.
//
//   y = x W' + bias + s * (x A') B' [+ residual],  then an activation if asked for
//   backward: dx = dy W + v A,  dA += v' x,  dB += s dy' (x A'),  v = s dy B
// W [out, in] is frozen, dense or NF4. A [r, in], B [out, r] are f32 and rounded to the compute
// type for the products; their gradients are f32 and always added to. Hu et al. 2021; Dettmers
// et al. 2023. With dropout the LoRA branch reads dropout(x) (counter-based: repeats on replay).
// x is in the compute type; y too, or in that of the residual stream (residual_type), whose dy is
// rounded to the compute type before it meets W, A and B.
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
    std::optional<autograd::Var> residual = std::nullopt;  // [T, out], added to y, of y's type
    ops::Activation activation = ops::Activation::none;
    // The value of this product is not needed in a replay: it is the last of its segment.
    bool last = false;
    // Without a residual: y is in the residual stream's type all the same.
    bool joins_residual = false;
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
  struct Adapters {  // of some parts, by their places
    std::vector<std::size_t> parts;
    std::int64_t r = 0;  // the sum of theirs
  };

  Forward begin(autograd::Tape& t, std::int64_t rows, const Epilogue& epilogue) const;
  void base(autograd::Tape& t, const Tensor& x, const Tensor& y, const Forward& saved,
            const Epilogue& epilogue) const;
  bool few_rows(autograd::Tape& t, const Tensor& x, const Tensor& y,
                const Epilogue& epilogue) const;
  void lora_up(autograd::Tape& t, const Tensor& y, const Forward& saved,
               const Epilogue& epilogue) const;
  static std::vector<Adapters> adapters(const autograd::Tape& t, std::span<const Part> parts);
  static Tensor stacked_a(autograd::Tape& t, std::span<const Part> parts, const Adapters& adapters);
  static void forward(autograd::Tape& t, const Tensor& x, std::span<Part> parts,
                      const Epilogue& epilogue);
  static void backward(autograd::Tape& t, const autograd::Var& x, const Tensor& dy,
                       std::span<const Part> parts);
  static void backward_lora(autograd::Tape& t, const autograd::Var& x, const Tensor& dy,
                            std::span<const Part> parts, const Adapters& group,
                            const ops::GradOut& dx);
  static void add_grad_of_a(autograd::Tape& t, const Tensor& x, const Tensor& v,
                            std::span<const Part> parts, const Adapters& group);
  DType type_of_y(const Epilogue& epilogue) const;
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

// Several layers that read one x: their outputs side by side, [T, sum of out]. Their adapters'
// products that share an operand are one each, with the A stacked to [sum of r, in]: x A', v A and
// v' x. Where the adapters drop out x, each reads an x of its own and they stay apart.
autograd::Var linear_group(autograd::Tape& t, const autograd::Var& x_TC,
                           std::span<const Linear* const> layers);

}  // namespace medvqa::nn
