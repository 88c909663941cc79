// Differentiable functions: each runs forward and says, directly beneath, how to run backward.
// What is saved is what the closure captures. Frozen weights are plain tensors; the one function
// with trainable weights is nn::Linear. Shapes as in ops/params.h.
#pragma once

#include "medvqa/autograd/tape.h"

namespace medvqa::autograd {

// y_TC = x * inv_rms * weight. Zhang & Sennrich 2019.
Var rms_norm(Tape& t, const Var& x_TC, const Tensor& weight_C, double eps);

// y_TC = (x - mean) * inv_std * weight + bias. Ba et al. 2016.
Var layer_norm(Tape& t, const Var& x_TC, const Tensor& weight_C, const Tensor& bias_C, double eps);

struct RotaryAngles {
  Tensor cos_TF, sin_TF;  // f32 [T, D / 2]
};
// Rotates the first `heads` heads of packed rows in place, and later their gradient. The value
// before the rotation is gone: only for values whose producer does not read them again (a linear).
Var rotary(Tape& t, const Var& packed_TC, std::int64_t heads, std::int64_t head_size,
           const RotaryAngles& angles);

// `heads` heads of size D that begin at column `begin` of a packed value.
struct HeadBlock {
  Var packed_TC;
  std::int64_t begin = 0;
  std::int64_t heads = 0;
};

// Where samples begin in packed rows: i32 [N + 1] in device memory, and the longest sample.
struct Segments {
  Tensor cu_seqlens_N;
  std::int64_t longest = 0;
};

struct AttentionShape {
  std::int64_t head_size = 0;
  bool causal = false;
  double scale = 1;
  Segments queries, keys;
};
// y_TC [T, H * D]. The blocks taken from one packed value must cover it: each writes its part of
// that value's gradient.
Var attention(Tape& t, const HeadBlock& q, const HeadBlock& k, const HeadBlock& v,
              const AttentionShape& shape);

// y = f(x) for gelu, quick_gelu and silu.
Var activation(Tape& t, const Var& x_TC, ops::Activation kind);

// gate_up_TF2 holds gate in its first half of columns and up in its second; y_TF.
Var swiglu(Tape& t, const Var& gate_up_T2F);

// y_RC = x[rows]; the rows must be distinct. rows_R: i32.
Var gather_rows(Tape& t, const Var& x_TC, const Tensor& rows_R);

// y = base with row rows[i] replaced by features[i]; base gets no gradient. rows_I: i32.
Var splice(Tape& t, const Tensor& base_TC, const Var& features_IC, const Tensor& rows_I);

}  // namespace medvqa::autograd
