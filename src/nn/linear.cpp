#include "medvqa/nn/linear.h"

#include <utility>

#include "medvqa/ops/scratch.h"

namespace medvqa::nn {

using autograd::Tape;
using autograd::Var;
using ops::Gemm;
using ops::GradOut;
using ops::Transpose;

// What one layer's backward needs from its forward, and cannot make again from x.
struct Linear::Forward {
  Tensor u;              // x A' [T, r] in the compute type
  Tensor weight;         // the dequantised weight, if it was kept
  Tensor preactivation;  // only with an activation
  bool wanted = true;    // whether y is computed at all
};

// One layer of a group: its columns of the packed output begin at `begin`.
struct Linear::Part {
  const Linear* layer;
  std::int64_t begin;
  Tensor y;
  Forward saved;
};

Linear::Linear(Builder& builder, const std::string& name, LinearShape shape, LinearKind kind,
               std::vector<std::int64_t> stored_shape)
    : shape_(shape), compute_(builder.compute()) {
  if (stored_shape.empty()) stored_shape = {shape.out, shape.in};
  const TensorRequest request{.name = name + ".weight",
                              .shape = stored_shape,
                              .role = TensorRole::linear,
                              .quantizable = kind != LinearKind::other};
  if (builder.dequantize() == Dequantize::at_load) {
    dense_ = builder.dequantized(request, {shape.out, shape.in});
  } else {
    nf4_ = builder.nf4(request);
    if (!nf4_) dense_ = builder.dense(request, {shape.out, shape.in});
  }
  if (shape.bias) {
    bias_ = builder.dense({name + ".bias", {shape.out}, TensorRole::bias}, {shape.out});
  }
  lora_ = builder.lora(name, kind, shape.out, shape.in);
}

Tensor Linear::weight(ops::Backend& backend, Arena& arena) const {
  if (!nf4_) return dense_;
  const Tensor w = arena.allocate({shape_.out, shape_.in}, compute_);
  backend.dequantize_nf4(*nf4_, w);
  return w;
}

namespace {

// An f32 master in the compute type; a temporary unless they are the same.
Tensor as_compute(Tape& t, const Tensor& master, DType compute) {
  if (master.dtype == compute) return master;
  const Tensor c = t.scratch().allocate(master.shape, compute);
  t.backend().convert(master, c);
  return c;
}

}  // namespace

bool Linear::drops_out(const Tape& t) const {
  return t.options().dropout && lora_->dropout > 0;
}

Tensor Linear::lora_input(Tape& t, const Tensor& x) const {
  if (!drops_out(t)) return x;
  const Tensor dropped = t.scratch().allocate_like(x);
  t.backend().dropout({.x_TC = x,
                       .y_TC = {dropped, false},
                       .p = lora_->dropout,
                       .seed = t.options().random_key,
                       .stream = lora_->stream});
  return dropped;
}

Linear::Forward Linear::begin(Tape& t, std::int64_t rows, const Epilogue& epilogue) const {
  // A replay skips the last product, and with it the preactivation its backward would read.
  MEDVQA_CHECK(!epilogue.last || epilogue.activation == ops::Activation::none,
               "the last linear of a segment cannot have an activation");
  Forward saved;
  saved.wanted = !(epilogue.last && t.replaying());
  if (lora_) saved.u = t.allocate({rows, lora_->r}, compute_);
  if (epilogue.activation != ops::Activation::none) {
    saved.preactivation = t.allocate({rows, shape_.out}, compute_);
  }
  if (t.recording() && t.options().keep_weights && nf4_) {
    saved.weight = weight(t.backend(), t.block());
  }
  return saved;
}

// In inference, where the device multiplies few rows without storing W: y = x W' + bias + residual.
bool Linear::few_rows(Tape& t, const Tensor& x, const Tensor& y, const Epilogue& epilogue) const {
  if (!t.options().inference || !nf4_ || epilogue.activation != ops::Activation::none) return false;
  ops::Nf4Product product{.x_MI = x, .weight = *nf4_, .y_MO = y, .bias_O = bias_};
  if (!ops::fused(product, t.backend().traits())) return false;
  if (epilogue.residual) product.residual_MO = epilogue.residual->value;
  t.backend().nf4_product(product);
  return true;
}

// y = x W' + bias + residual, and the activation if no adapter follows. Where one does and an
// activation after it, the sum goes straight to saved.preactivation.
void Linear::base(Tape& t, const Tensor& x, const Tensor& y, const Forward& saved,
                  const Epilogue& epilogue) const {
  if (!saved.wanted || few_rows(t, x, y, epilogue)) return;
  Arena::Scope scope(t.scratch());
  Gemm product{.a = x, .transpose_b = Transpose::yes, .c = y, .bias_N = bias_};
  product.b = saved.weight ? saved.weight : weight(t.backend(), t.scratch());
  if (epilogue.residual) product.residual_MN = epilogue.residual->value;
  if (!lora_) {
    product.activation = epilogue.activation;
    product.preactivation_MN = saved.preactivation;
  } else if (saved.preactivation) {
    product.c = saved.preactivation;
  }
  t.backend().gemm(product);
}

// u = x A'. Its operands may be temporaries in scratch.
Gemm Linear::lora_down(Tape& t, const Tensor& x, const Forward& saved) const {
  return {.a = lora_input(t, x),
          .b = as_compute(t, lora_->a.value, compute_),
          .transpose_b = Transpose::yes,
          .c = saved.u};
}

// y += s u B', then the activation.
void Linear::lora_up(Tape& t, const Tensor& y, const Forward& saved,
                     const Epilogue& epilogue) const {
  if (!saved.wanted) return;
  Arena::Scope scope(t.scratch());
  t.backend().gemm({.a = saved.u,
                    .b = as_compute(t, lora_->b.value, compute_),
                    .transpose_b = Transpose::yes,
                    .c = y,
                    .alpha = lora_->scaling,
                    .residual_MN = saved.preactivation ? saved.preactivation : y,
                    .activation = epilogue.activation,
                    .preactivation_MN = saved.preactivation});
}

Linear::Forward Linear::forward(Tape& t, const Tensor& x, const Tensor& y,
                                const Epilogue& epilogue) const {
  const Forward saved = begin(t, x.dim(0), epilogue);
  base(t, x, y, saved, epilogue);
  if (!lora_) return saved;
  {
    Arena::Scope scope(t.scratch());
    t.backend().gemm(lora_down(t, x, saved));
  }
  lora_up(t, y, saved, epilogue);
  return saved;
}

void Linear::backward(Tape& t, const Var& x, const Tensor& dy, const Forward& saved,
                      const GradOut& dx) const {
  if (dx) {
    Arena::Scope scope(t.scratch());
    const Tensor w = saved.weight ? saved.weight : weight(t.backend(), t.scratch());
    t.backend().gemm({.a = dy, .b = w, .c = dx.tensor, .accumulate = dx.accumulate});
  }
  if (lora_) backward_lora(t, x, dy, saved, {dx.tensor, true});
}

// `dx`, if wanted, already holds the base's part.
void Linear::backward_lora(Tape& t, const Var& x, const Tensor& dy, const Forward& saved,
                           const GradOut& dx) const {
  Arena::Scope scope(t.scratch());
  const Tensor v = t.scratch().allocate({dy.dim(0), lora_->r}, compute_);
  t.backend().gemm(
      {.a = dy, .b = as_compute(t, lora_->b.value, compute_), .c = v, .alpha = lora_->scaling});
  t.backend().gemm({.a = dy,
                    .transpose_a = Transpose::yes,
                    .b = saved.u,
                    .c = lora_->b.grad,
                    .alpha = lora_->scaling,
                    .accumulate = true});
  t.backend().gemm({.a = v,
                    .transpose_a = Transpose::yes,
                    .b = lora_input(t, x.value),
                    .c = lora_->a.grad,
                    .accumulate = true});
  if (!dx) return;
  const Tensor a = as_compute(t, lora_->a.value, compute_);
  if (!drops_out(t)) {
    t.backend().gemm({.a = v, .b = a, .c = dx.tensor, .accumulate = true});
    return;
  }
  const Tensor through = t.scratch().allocate_like(x.value);
  t.backend().gemm({.a = v, .b = a, .c = through});
  t.backend().dropout({.x_TC = through,
                       .y_TC = dx,
                       .p = lora_->dropout,
                       .seed = t.options().random_key,
                       .stream = lora_->stream});
}

Var Linear::operator()(Tape& t, const Var& x, const Epilogue& epilogue) const {
  const Shape shape{x.value.dim(0), shape_.out};
  const bool unseen = epilogue.last && t.replaying();
  const Tensor y = unseen ? Tensor(nullptr, compute_, shape) : t.allocate(shape, compute_);
  const Forward saved = forward(t, x.value, y, epilogue);
  const std::optional<Var> residual = epilogue.residual;
  const ops::Activation kind = epilogue.activation;
  const Var out =
      residual ? t.result(y, {x, *residual}, trainable()) : t.result(y, {x}, trainable());
  t.on_backward(out, [=, this, &t] {
    const Tensor dy = t.grad_of(out);
    if (kind != ops::Activation::none) {
      t.backend().activation_backward(kind, saved.preactivation, dy, {dy, false});
    }
    if (residual) t.backend().accumulate(dy, t.grad(*residual));
    backward(t, x, dy, saved, t.grad(x));
  });
  return out;
}

// The products with A share x and run as one group, unless each layer drops out its own x.
void Linear::forward_group(Tape& t, const Tensor& x, std::span<Part> parts) {
  for (Part& p : parts) {
    p.saved = p.layer->begin(t, x.dim(0), {});
    p.layer->base(t, x, p.y, p.saved, {});
  }
  {
    Arena::Scope scope(t.scratch());
    std::vector<Gemm> shared;
    for (const Part& p : parts) {
      if (!p.layer->trainable()) continue;
      const Gemm down = p.layer->lora_down(t, x, p.saved);
      if (p.layer->drops_out(t)) {
        t.backend().gemm(down);
      } else {
        shared.push_back(down);
      }
    }
    if (!shared.empty()) t.backend().gemm_group(shared);
  }
  for (const Part& p : parts) {
    if (p.layer->trainable()) p.layer->lora_up(t, p.y, p.saved, {});
  }
}

Var linear_group(Tape& t, const Var& x, std::span<const Linear* const> layers) {
  std::int64_t columns = 0;
  bool trainable = false;
  for (const Linear* layer : layers) {
    columns += layer->out();
    trainable = trainable || layer->trainable();
  }
  const Tensor y = t.allocate({x.value.dim(0), columns}, layers.front()->compute_);
  std::vector<Linear::Part> parts;
  std::int64_t begin = 0;
  for (const Linear* layer : layers) {
    parts.push_back({layer, begin, y.columns(begin, begin + layer->out()), {}});
    begin += layer->out();
  }
  Linear::forward_group(t, x.value, parts);
  const Var out = t.result(y, {x}, trainable);
  t.on_backward(out, [=, &t] {
    const Tensor dy = t.grad_of(out);
    for (const Linear::Part& p : parts) {
      const Tensor d = dy.columns(p.begin, p.begin + p.layer->out());
      p.layer->backward(t, x, d, p.saved, t.grad(x));
    }
  });
  return out;
}

}  // namespace medvqa::nn
