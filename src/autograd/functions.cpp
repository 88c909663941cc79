#include "medvqa/autograd/functions.h"

#include <vector>

namespace medvqa::autograd {

Var rms_norm(Tape& t, const Var& x, const Tensor& weight, double eps) {
  const Tensor y = t.allocate(x.value.shape, weight.dtype);
  const Tensor inv_rms = t.allocate({x.value.dim(0)}, accumulator_of(x.value.dtype));
  t.backend().rms_norm(
      {.x_TC = x.value, .weight_C = weight, .eps = eps, .y_TC = y, .inv_rms_T = inv_rms});
  const Var out = t.result(y, {x});
  t.on_backward(out, [=, &t] {
    t.backend().rms_norm_backward({.x_TC = x.value,
                                   .weight_C = weight,
                                   .inv_rms_T = inv_rms,
                                   .dy_TC = t.grad_of(out),
                                   .dx_TC = t.grad(x)});
  });
  return out;
}

Var layer_norm(Tape& t, const Var& x, const Tensor& weight, const Tensor& bias, double eps) {
  const Tensor y = t.allocate(x.value.shape, weight.dtype);
  const Tensor mean = t.allocate({x.value.dim(0)}, accumulator_of(x.value.dtype));
  const Tensor inv_std = t.allocate({x.value.dim(0)}, accumulator_of(x.value.dtype));
  t.backend().layer_norm({.x_TC = x.value,
                          .weight_C = weight,
                          .bias_C = bias,
                          .eps = eps,
                          .y_TC = y,
                          .mean_T = mean,
                          .inv_std_T = inv_std});
  const Var out = t.result(y, {x});
  t.on_backward(out, [=, &t] {
    t.backend().layer_norm_backward({.x_TC = x.value,
                                     .weight_C = weight,
                                     .mean_T = mean,
                                     .inv_std_T = inv_std,
                                     .dy_TC = t.grad_of(out),
                                     .dx_TC = t.grad(x)});
  });
  return out;
}

Var rotary(Tape& t, const Var& packed, std::int64_t heads, std::int64_t head_size,
           const RotaryAngles& angles) {
  const auto rotate = [=, &t](const Tensor& x, bool inverse) {
    t.backend().rotary({.x_TC = x,
                        .heads = heads,
                        .head_size = head_size,
                        .cos_TF = angles.cos_TF,
                        .sin_TF = angles.sin_TF,
                        .inverse = inverse});
  };
  rotate(packed.value, false);
  t.on_backward(packed, [=, &t] { rotate(t.grad_of(packed), true); });
  return packed;
}

Var activation(Tape& t, const Var& x, ops::Activation kind) {
  const Tensor y = t.allocate(x.value.shape, x.value.dtype);
  t.backend().activation(kind, x.value, y);
  const Var out = t.result(y, {x});
  t.on_backward(
      out, [=, &t] { t.backend().activation_backward(kind, x.value, t.grad_of(out), t.grad(x)); });
  return out;
}

Var swiglu(Tape& t, const Var& gate_up) {
  const std::int64_t half = gate_up.value.dim(1) / 2;
  const Tensor gate = gate_up.value.columns(0, half);
  const Tensor up = gate_up.value.columns(half, 2 * half);
  const Tensor y = t.allocate({gate_up.value.dim(0), half}, gate_up.value.dtype);
  t.backend().swiglu({.gate_TF = gate, .up_TF = up, .y_TF = y});
  const Var out = t.result(y, {gate_up});
  t.on_backward(out, [=, &t] {
    const ops::GradOut d = t.grad(gate_up);
    if (!d) return;
    t.backend().swiglu_backward({.gate_TF = gate,
                                 .up_TF = up,
                                 .dy_TF = t.grad_of(out),
                                 .dgate_TF = {d.tensor.columns(0, half), d.accumulate},
                                 .dup_TF = {d.tensor.columns(half, 2 * half), d.accumulate}});
  });
  return out;
}

Var convert(Tape& t, const Var& x, DType type) {
  if (x.value.dtype == type) return x;
  const Tensor y = t.allocate(x.value.shape, type);
  t.backend().convert(x.value, y);
  const Var out = t.result(y, {x});
  t.on_backward(out, [=, &t] {
    const ops::GradOut dx = t.grad(x);
    if (!dx) return;
    if (!dx.accumulate) return t.backend().convert(t.grad_of(out), dx.tensor);
    Arena::Scope scope(t.scratch());
    const Tensor part = t.scratch().allocate_like(x.value);
    t.backend().convert(t.grad_of(out), part);
    t.backend().accumulate(part, dx);
  });
  return out;
}

Var gather_rows(Tape& t, const Var& x, const Tensor& rows) {
  const Tensor y = t.allocate({rows.dim(0), x.value.dim(1)}, x.value.dtype);
  t.backend().gather_rows(x.value, rows, y);
  const Var out = t.result(y, {x});
  t.on_backward(out, [=, &t] {
    const ops::GradOut dx = t.grad(x);
    if (!dx) return;
    // Rows nobody chose have no gradient from here.
    if (!dx.accumulate) {
      t.backend().fill(dx.tensor, 0);
      t.backend().scatter_rows(t.grad_of(out), rows, dx.tensor);
      return;
    }
    Arena::Scope scope(t.scratch());
    const Tensor sum = t.scratch().allocate_like(y);
    t.backend().gather_rows(dx.tensor, rows, sum);
    t.backend().accumulate(t.grad_of(out), {sum, true});
    t.backend().scatter_rows(sum, rows, dx.tensor);
  });
  return out;
}

Var splice(Tape& t, const Tensor& base, const Var& features, const Tensor& rows) {
  const Tensor y = t.allocate(base.shape, base.dtype);
  t.backend().copy(base, y);
  t.backend().scatter_rows(features.value, rows, y);
  const Var out = t.result(y, {features});
  t.on_backward(out, [=, &t] {
    const ops::GradOut d = t.grad(features);
    if (!d) return;
    if (!d.accumulate) return t.backend().gather_rows(t.grad_of(out), rows, d.tensor);
    Arena::Scope scope(t.scratch());
    const Tensor part = t.scratch().allocate_like(features.value);
    t.backend().gather_rows(t.grad_of(out), rows, part);
    t.backend().accumulate(part, d);
  });
  return out;
}

Var add_scaled(Tape& t, const Var& x, const Var& y, const ResidualScale& scale) {
  const bool unseen = scale.last && t.replaying();
  const Shape shape = x.value.shape;
  const Tensor z =
      unseen ? Tensor(nullptr, x.value.dtype, shape) : t.allocate(shape, x.value.dtype);
  if (!unseen) {
    t.backend().copy(x.value, z);
    t.backend().scale_rows(y.value, scale.factor, scale.scale_T, {z, true});
  }
  const Var out = t.result(z, {x, y});
  t.on_backward(out, [=, &t] {
    t.backend().accumulate(t.grad_of(out), t.grad(x));
    t.backend().scale_rows(t.grad_of(out), scale.factor, scale.scale_T, t.grad(y));
  });
  return out;
}

// Column k of the interleaved part, as a tensor of one column: element (t, d) of others[k].
Var join_interleaved(Tape& t, const Var& first, std::span<const Var> others) {
  const std::int64_t rows = first.value.dim(0);
  const std::int64_t begin = first.value.dim(1);
  const auto count = static_cast<std::int64_t>(others.size());
  const std::int64_t wide = count == 0 ? 0 : others.front().value.dim(1) * count;
  const DType type = first.value.dtype;
  const Tensor y = t.allocate({rows, begin + wide}, type);
  const auto element = [=](const Tensor& mixed, std::int64_t k) {
    return mixed.reshaped({rows * wide / count, count}).columns(k, k + 1);
  };
  const auto one_column = [](const Tensor& x) { return x.reshaped({x.elements(), 1}); };
  std::vector<Var> inputs(others.begin(), others.end());
  inputs.push_back(first);
  t.backend().copy(first.value, y.columns(0, begin));
  if (count > 0) {
    Arena::Scope scope(t.scratch());
    const Tensor mixed = t.scratch().allocate({rows, wide}, type);
    for (std::int64_t k = 0; k < count; ++k) {
      t.backend().copy(one_column(others[static_cast<std::size_t>(k)].value), element(mixed, k));
    }
    t.backend().copy(mixed, y.columns(begin, begin + wide));
  }
  const Var out = t.result(y, inputs);
  t.on_backward(out, [=, &t] {
    const Tensor dy = t.grad_of(out);
    t.backend().accumulate(dy.columns(0, begin), t.grad(first));
    if (count == 0) return;
    Arena::Scope scope(t.scratch());
    const Tensor mixed = t.scratch().allocate({rows, wide}, type);
    t.backend().copy(dy.columns(begin, begin + wide), mixed);
    for (std::int64_t k = 0; k < count; ++k) {
      const ops::GradOut d = t.grad(inputs[static_cast<std::size_t>(k)]);
      if (d) t.backend().accumulate(element(mixed, k), {one_column(d.tensor), d.accumulate});
    }
  });
  return out;
}

}  // namespace medvqa::autograd
