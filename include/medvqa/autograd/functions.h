// Differentiable functions: each runs forward and says, directly beneath, how to run backward.
// What is saved is what the closure captures. Frozen weights are plain tensors; the one function
// with trainable weights is nn::Linear. Shapes as in ops/params.h.
#pragma once

#include <span>

#include "medvqa/autograd/attention.h"
#include "medvqa/autograd/tape.h"

namespace medvqa::autograd {

// y in the type of the weight, x in that or the accumulator's: so a residual stream in f32 becomes
// the f16 of a block. y_TC = x * inv_rms * weight. Zhang & Sennrich 2019.
Var rms_norm(Tape& t, const Var& x_TC, const Tensor& weight_C, double eps);

// Types as of rms_norm. y_TC = (x - mean) * inv_std * weight + bias. Ba et al. 2016.
Var layer_norm(Tape& t, const Var& x_TC, const Tensor& weight_C, const Tensor& bias_C, double eps);

struct RotaryAngles {
  Tensor cos_TF, sin_TF;  // f32 [T, D / 2]
};
// Rotates the first `heads` heads of packed rows in place, and later their gradient. The value
// before the rotation is gone: only for values whose producer does not read them again (a linear).
Var rotary(Tape& t, const Var& packed_TC, std::int64_t heads, std::int64_t head_size,
           const RotaryAngles& angles);

// y = f(x) for gelu, quick_gelu and silu.
Var activation(Tape& t, const Var& x_TC, ops::Activation kind);

// gate_up_TF2 holds gate in its first half of columns and up in its second; y_TF.
Var swiglu(Tape& t, const Var& gate_up_T2F);

// x in another type; itself if it has that type.
Var convert(Tape& t, const Var& x, DType type);

// y_RC = x[rows]; the rows must be distinct. rows_R: i32.
Var gather_rows(Tape& t, const Var& x_TC, const Tensor& rows_R);

// y = base with row rows[i] replaced by features[i]; base gets no gradient. rows_I: i32.
Var splice(Tape& t, const Tensor& base_TC, const Var& features_IC, const Tensor& rows_I);

// z = x + factor * scale[t] * y[t]: a gated residual. factor and scale_T (f32 [T], empty for ones)
// are constants. `last`: z is not needed in a replay, see nn::Linear::Epilogue.
struct ResidualScale {
  double factor = 1;
  Tensor scale_T = {};
  bool last = false;
};
Var add_scaled(Tape& t, const Var& x_TC, const Var& y_TC, const ResidualScale& scale);

// [T, C + K * D]: first's columns, then element d of all K others side by side, for every d in D.
Var join_interleaved(Tape& t, const Var& first_TC, std::span<const Var> others_TD);

}  // namespace medvqa::autograd
