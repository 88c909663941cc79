#include "medvqa/autograd/functions.h"

#include <array>

namespace medvqa::autograd {

namespace {

DType accumulator_of(DType t) {
  return t == DType::f64 ? DType::f64 : DType::f32;
}

Tensor heads_of(const Tensor& packed_TC, const HeadBlock& block, std::int64_t head_size) {
  return packed_TC.columns(block.begin, block.begin + block.heads * head_size)
      .reshaped({packed_TC.dim(0), block.heads, head_size});
}

}  // namespace

Var rms_norm(Tape& t, const Var& x, const Tensor& weight, double eps) {
  const Tensor y = t.allocate(x.value.shape, x.value.dtype);
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
  const Tensor y = t.allocate(x.value.shape, x.value.dtype);
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

Var attention(Tape& t, const HeadBlock& q, const HeadBlock& k, const HeadBlock& v,
              const AttentionShape& shape) {
  const std::int64_t size = shape.head_size;
  const DType type = q.packed_TC.value.dtype;
  const Shape y_shape{q.packed_TC.value.dim(0), q.heads * size};
  const Shape lse_shape{q.heads, y_shape.dim(0)};
  SavedAttention* saved = t.options().attention;
  const std::size_t index = t.next_attention();
  const bool known = saved != nullptr && t.replaying();
  SavedAttention::Entry e;
  if (known) {
    e = saved->entries.at(index);
  } else {
    Arena& arena = saved != nullptr ? *t.options().attention_arena : t.block();
    e = {arena.allocate(y_shape, type), arena.allocate(lse_shape, accumulator_of(type))};
    if (saved != nullptr) saved->entries.push_back(e);
  }
  const ops::Attention forward{
      .q_THD = heads_of(q.packed_TC.value, q, size),
      .k_SGD = heads_of(k.packed_TC.value, k, size),
      .v_SGD = heads_of(v.packed_TC.value, v, size),
      .y_THD = e.y.reshaped({y_shape.dim(0), q.heads, size}),
      .lse_HT = e.lse,
      .cu_q_N = shape.queries.cu_seqlens_N,
      .cu_k_N = shape.keys.cu_seqlens_N,
      .max_q = shape.queries.longest,
      .max_k = shape.keys.longest,
      .causal = shape.causal,
      .scale = shape.scale,
  };
  if (!known) t.backend().attention(forward);
  const Var out = t.result(e.y, {q.packed_TC, k.packed_TC, v.packed_TC});
  t.on_backward(out, [=, &t] {
    // One gradient a packed value, however many blocks of it take part.
    const std::array<const HeadBlock*, 3> blocks{&q, &k, &v};
    std::array<ops::GradOut, 3> whole;
    std::array<ops::GradOut, 3> part;
    for (std::size_t i = 0; i < 3; ++i) {
      whole[i] = {};
      for (std::size_t j = 0; j < i && !whole[i]; ++j) {
        if (blocks[j]->packed_TC.id == blocks[i]->packed_TC.id) whole[i] = whole[j];
      }
      if (!whole[i]) whole[i] = t.grad(blocks[i]->packed_TC);
      if (!whole[i]) continue;
      part[i] = {heads_of(whole[i].tensor, *blocks[i], size), whole[i].accumulate};
    }
    t.backend().attention_backward({.forward = forward,
                                    .dy_THD = t.grad_of(out).reshaped(forward.q_THD.shape),
                                    .dq_THD = part[0],
                                    .dk_SGD = part[1],
                                    .dv_SGD = part[2]});
  });
  return out;
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

}  // namespace medvqa::autograd
