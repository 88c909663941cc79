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
  Tensor u;              // x A' [T, r] in the compute type: columns of its group's
  Tensor weight;         // the dequantised weight, if it was kept
  Tensor preactivation;  // only with an activation
  bool wanted = true;    // whether y is computed at all
};

// One of the layers that read the same x: its columns of the packed output begin at `begin`.
struct Linear::Part {
  const Linear* layer;
  std::int64_t begin;
  Tensor y;
  Forward saved;
  Tensor columns_of(const Tensor& packed) const {
    return packed.columns(begin, begin + layer->out());
  }
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

// The values in that type; a temporary unless they have it.
Tensor as_type(Tape& t, const Tensor& values, DType type) {
  if (values.dtype == type) return values;
  const Tensor c = t.scratch().allocate(values.shape, type);
  t.backend().convert(values, c);
  return c;
}

}  // namespace

DType Linear::type_of_y(const Epilogue& epilogue) const {
  if (epilogue.residual) return epilogue.residual->value.dtype;
  return epilogue.joins_residual ? residual_type(compute_) : compute_;
}

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
  MEDVQA_CHECK(epilogue.activation == ops::Activation::none || type_of_y(epilogue) == compute_,
               "an activation is computed in the compute type");
  Forward saved;
  saved.wanted = !(epilogue.last && t.replaying());
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
  const bool plain = epilogue.activation == ops::Activation::none && y.dtype == compute_;
  if (!t.options().inference || !nf4_ || !plain) return false;
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
  Gemm product{.a = x, .transpose_b = Transpose::yes, .c = y};
  if (bias_) product.bias_N = as_type(t, bias_, y.dtype);
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

// y += s u B', then the activation.
void Linear::lora_up(Tape& t, const Tensor& y, const Forward& saved,
                     const Epilogue& epilogue) const {
  if (!saved.wanted) return;
  Arena::Scope scope(t.scratch());
  t.backend().gemm({.a = saved.u,
                    .b = as_type(t, lora_->b.value, compute_),
                    .transpose_b = Transpose::yes,
                    .c = y,
                    .alpha = lora_->scaling,
                    .residual_MN = saved.preactivation ? saved.preactivation : y,
                    .activation = epilogue.activation,
                    .preactivation_MN = saved.preactivation});
}

// The adapters whose products with x are one: all of them, or each by itself where it drops out x.
std::vector<Linear::Adapters> Linear::adapters(const Tape& t, std::span<const Part> parts) {
  std::vector<Adapters> found;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const Linear& layer = *parts[i].layer;
    if (!layer.lora_) continue;
    const auto alone = [&] {
      return layer.drops_out(t) || parts[found.back().parts.back()].layer->drops_out(t);
    };
    if (found.empty() || alone()) found.push_back({});
    found.back().parts.push_back(i);
    found.back().r += layer.lora_->r;
  }
  return found;
}

// Their A below each other, [sum of r, in], in the compute type.
Tensor Linear::stacked_a(Tape& t, std::span<const Part> parts, const Adapters& adapters) {
  const Linear& first = *parts[adapters.parts.front()].layer;
  if (adapters.parts.size() == 1) return as_type(t, first.lora_->a.value, first.compute_);
  const Tensor all = t.scratch().allocate({adapters.r, first.in()}, first.compute_);
  std::int64_t row = 0;
  for (const std::size_t i : adapters.parts) {
    const Tensor& a = parts[i].layer->lora_->a.value;
    const Tensor rows = all.rows_between(row, row + a.dim(0));
    if (a.dtype == rows.dtype) {
      t.backend().copy(a, rows);
    } else {
      t.backend().convert(a, rows);
    }
    row += a.dim(0);
  }
  return all;
}

void Linear::forward(Tape& t, const Tensor& x, std::span<Part> parts, const Epilogue& epilogue) {
  for (Part& p : parts) {
    p.saved = p.layer->begin(t, x.dim(0), epilogue);
    p.layer->base(t, x, p.y, p.saved, epilogue);
  }
  for (const Adapters& group : adapters(t, parts)) {
    const Linear& first = *parts[group.parts.front()].layer;
    const Tensor u = t.allocate({x.dim(0), group.r}, first.compute_);
    {
      Arena::Scope scope(t.scratch());
      t.backend().gemm({.a = first.lora_input(t, x),
                        .b = stacked_a(t, parts, group),
                        .transpose_b = Transpose::yes,
                        .c = u});
    }
    std::int64_t column = 0;
    for (const std::size_t i : group.parts) {
      Part& p = parts[i];
      p.saved.u = u.columns(column, column + p.layer->lora_->r);
      column += p.layer->lora_->r;
      p.layer->lora_up(t, p.y, p.saved, epilogue);
    }
  }
}

void Linear::backward(Tape& t, const Var& x, const Tensor& dy, std::span<const Part> parts) {
  GradOut dx = t.grad(x);
  for (const Part& p : parts) {
    if (!dx) break;
    Arena::Scope scope(t.scratch());
    const Tensor w = p.saved.weight ? p.saved.weight : p.layer->weight(t.backend(), t.scratch());
    t.backend().gemm({.a = p.columns_of(dy), .b = w, .c = dx.tensor, .accumulate = dx.accumulate});
    dx.accumulate = true;
  }
  for (const Adapters& group : adapters(t, parts)) backward_lora(t, x, dy, parts, group, dx);
}

// `dx`, if wanted, already holds the base's part.
void Linear::backward_lora(Tape& t, const Var& x, const Tensor& dy, std::span<const Part> parts,
                           const Adapters& group, const GradOut& dx) {
  Arena::Scope scope(t.scratch());
  const Linear& first = *parts[group.parts.front()].layer;
  const Tensor v = t.scratch().allocate({dy.dim(0), group.r}, first.compute_);
  std::int64_t column = 0;
  for (const std::size_t i : group.parts) {
    const LoraModule& lora = *parts[i].layer->lora_;
    const Tensor d = parts[i].columns_of(dy);
    Arena::Scope operands(t.scratch());
    t.backend().gemm({.a = d,
                      .b = as_type(t, lora.b.value, first.compute_),
                      .c = v.columns(column, column + lora.r),
                      .alpha = lora.scaling});
    t.backend().gemm({.a = d,
                      .transpose_a = Transpose::yes,
                      .b = parts[i].saved.u,
                      .c = lora.b.grad,
                      .alpha = lora.scaling,
                      .accumulate = true});
    column += lora.r;
  }
  add_grad_of_a(t, first.lora_input(t, x.value), v, parts, group);
  if (!dx) return;
  const Tensor a = stacked_a(t, parts, group);
  if (!first.drops_out(t)) {
    t.backend().gemm({.a = v, .b = a, .c = dx.tensor, .accumulate = true});
    return;
  }
  const Tensor through = t.scratch().allocate_like(x.value);
  t.backend().gemm({.a = v, .b = a, .c = through});
  t.backend().dropout({.x_TC = through,
                       .y_TC = dx,
                       .p = first.lora_->dropout,
                       .seed = t.options().random_key,
                       .stream = first.lora_->stream});
}

// dA += v' x
void Linear::add_grad_of_a(Tape& t, const Tensor& x, const Tensor& v, std::span<const Part> parts,
                           const Adapters& group) {
  const Tensor& first = parts[group.parts.front()].layer->lora_->a.grad;
  Gemm product{.a = v, .transpose_a = Transpose::yes, .b = x, .c = first, .accumulate = true};
  if (group.parts.size() == 1) return t.backend().gemm(product);
  Arena::Scope scope(t.scratch());
  product.c = t.scratch().allocate({group.r, x.dim(1)}, first.dtype);
  product.accumulate = false;
  t.backend().gemm(product);
  std::int64_t row = 0;
  for (const std::size_t i : group.parts) {
    const Tensor& grad = parts[i].layer->lora_->a.grad;
    t.backend().accumulate(product.c.rows_between(row, row + grad.dim(0)), {grad, true});
    row += grad.dim(0);
  }
}

Var Linear::operator()(Tape& t, const Var& x, const Epilogue& epilogue) const {
  const Shape shape{x.value.dim(0), shape_.out};
  const bool unseen = epilogue.last && t.replaying();
  const DType type = type_of_y(epilogue);
  const Tensor y = unseen ? Tensor(nullptr, type, shape) : t.allocate(shape, type);
  Part part{this, 0, y, {}};
  forward(t, x.value, std::span(&part, 1), epilogue);
  const std::optional<Var> residual = epilogue.residual;
  const ops::Activation kind = epilogue.activation;
  const Var out =
      residual ? t.result(y, {x, *residual}, trainable()) : t.result(y, {x}, trainable());
  t.on_backward(out, [=, this, &t] {
    const Tensor dy = t.grad_of(out);
    if (kind != ops::Activation::none) {
      t.backend().activation_backward(kind, part.saved.preactivation, dy, {dy, false});
    }
    if (residual) t.backend().accumulate(dy, t.grad(*residual));
    Arena::Scope scope(t.scratch());
    backward(t, x, as_type(t, dy, compute_), std::span(&part, 1));
  });
  return out;
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
  Linear::forward(t, x.value, parts, {});
  const Var out = t.result(y, {x}, trainable);
  t.on_backward(out, [=, &t] { Linear::backward(t, x, t.grad_of(out), parts); });
  return out;
}

}  // namespace medvqa::nn
