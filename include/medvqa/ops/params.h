// Operands of the operations of backend.h that take more than four tensors.
//
// Shapes: T tokens (or rows), C channels, H query heads, G key/value heads, D head size, F feed-
// forward channels, V vocabulary, R rows with a label, N samples, M x K times K x N a product.
// "float" means f32, bf16 or f16 (and f64 on the CPU, the oracle); all float operands of one call
// have one type unless said otherwise. Sums are kept in f32 (f64 for f64).
// "rows may be strided": the tensor may be a block of columns (Tensor::row_stride).
#pragma once

#include <cstdint>
#include <span>

#include "medvqa/core/tensor.h"

namespace medvqa::ops {

// Where a gradient goes, and whether it is added to what is there. The tape decides, never a
// caller. An empty tensor means that nobody needs this gradient.
struct GradOut {
  Tensor tensor;
  bool accumulate = false;
  explicit operator bool() const { return static_cast<bool>(tensor); }
};

enum class Transpose : bool { no, yes };
enum class Activation : std::uint8_t { none, gelu_erf, gelu_tanh, quick_gelu, silu };

// z = alpha * op(a) op(b) + bias + residual (+ c if accumulate);  c = activation(z).
// a_MK, b_KN (or their transposes), c_MN, residual_MN: rows may be strided. a and b have one type;
// c has that type or the accumulator type. bias_N and residual_MN have c's type.
// With an activation, preactivation_MN (c's type, optional) receives z for the backward. residual
// may be c or the preactivation.
struct Gemm {
  Tensor a = {};
  Transpose transpose_a = Transpose::no;
  Tensor b = {};
  Transpose transpose_b = Transpose::no;
  Tensor c = {};
  double alpha = 1;
  bool accumulate = false;
  Tensor bias_N = {};
  Tensor residual_MN = {};
  Activation activation = Activation::none;
  Tensor preactivation_MN = {};
};

// A 4-bit weight [out, in] in device memory; see quant/nf4.h for the arithmetic.
struct Nf4Weight {
  std::int64_t out = 0;
  std::int64_t in = 0;
  std::int64_t block_size = 64;
  Tensor packed;         // u8 [out * in / 2]
  Tensor absmax;         // f32 [blocks], or u8 [blocks] if nested
  Tensor code;           // f32 [16]
  Tensor nested_absmax;  // f32 [ceil(blocks / nested_block_size)], only if nested
  Tensor nested_map;     // f32 [256], only if nested
  float nested_offset = 0;
  std::int64_t nested_block_size = 256;
  DType rounded_to = DType::bf16;  // what the values are rounded to before they meet y's type
  bool nested() const { return absmax.dtype == DType::u8; }
};

// y = x W' [+ bias] [+ residual], W as dequantize_nf4 makes it, sums in the accumulator type and
// rounded once: for few rows, where reading W is the work and a device need not store it.
// x_MI: float, contiguous. y_MO, residual_MO, bias_O: the type of x; the residual may be y itself.
struct Nf4Product {
  Tensor x_MI;
  Nf4Weight weight;
  Tensor y_MO;
  Tensor bias_O = {};
  Tensor residual_MO = {};
};

// y = x * inv_rms * w,  inv_rms = 1 / sqrt(mean_C(x^2) + eps).    Zhang & Sennrich 2019, eq. 4
// As in transformers, x * inv_rms is rounded to the type of x before w multiplies it.
// x_TC, y_TC: float, may not alias. w_C: float. inv_rms_T: accumulator type, kept for backward.
struct RmsNorm {
  Tensor x_TC, weight_C;
  double eps = 1e-6;
  Tensor y_TC, inv_rms_T;
};
// dx = inv_rms * (w dy - x * inv_rms^2 * mean_C(w dy x)).
struct RmsNormBackward {
  Tensor x_TC, weight_C, inv_rms_T, dy_TC;
  GradOut dx_TC;
};

// y = (x - mean) * inv_std * w + b,  inv_std = 1 / sqrt(var_C(x) + eps), biased variance.
// Ba et al. 2016. mean_T, inv_std_T: accumulator type, kept for the backward.
struct LayerNorm {
  Tensor x_TC, weight_C, bias_C;
  double eps = 1e-6;
  Tensor y_TC, mean_T, inv_std_T;
};
// With g = w dy and n = (x - mean) inv_std:  dx = inv_std * (g - mean_C(g) - n * mean_C(g n)).
struct LayerNormBackward {
  Tensor x_TC, weight_C, mean_T, inv_std_T, dy_TC;
  GradOut dx_TC;
};

// cos_TF[t, f] = cos(positions_AT[axis_F[f], t] * inv_freq_F[f]), sin likewise, all f32.
// One axis gives ordinary rotary positions, three M-RoPE (Wang et al. 2024), two the vision
// tower's rows and columns. F = D / 2. positions and axis: i32. inv_freq, cos, sin: f32.
struct RotaryTable {
  Tensor positions_AT, inv_freq_F, axis_F;
  Tensor cos_TF, sin_TF;
};

// Rotates, in place, the first `heads` heads of every row: for each pair (u, v) = (x[d], x[d+D/2])
//   u' = u cos - v sin,  v' = v cos + u sin.                      Su et al. 2021, half layout
// With `inverse` the transposed rotation: the backward. x_TC: float, rows may be strided, at least
// heads * D columns: packed query-key-value rows rotate queries and keys in one call.
struct Rotary {
  Tensor x_TC;
  std::int64_t heads = 0;
  std::int64_t head_size = 0;
  Tensor cos_TF, sin_TF;
  bool inverse = false;
};

// Softmax attention over packed samples: rows [cu[n], cu[n+1]) are sample n.
//   y = softmax(scale * q k') v,  lse = log sum exp of the scaled scores.   Dao et al. 2022
// Query head h reads key/value head h / (H / G). causal: key row <= query row inside a sample.
// q_THD, y_THD, k_SGD, v_SGD: float, rows may be strided. lse_HT: accumulator type.
// cu_q_N, cu_k_N: i32 [N + 1]; one sample's max lengths bound scratch and grids. scale > 0. In a
// sample without keys y = 0 and lse = 0; gradients of what nobody reads are zero.
struct Attention {
  Tensor q_THD, k_SGD, v_SGD;
  Tensor y_THD, lse_HT;
  Tensor cu_q_N, cu_k_N;
  std::int64_t max_q = 0;
  std::int64_t max_k = 0;
  bool causal = false;
  double scale = 1;
};
// With p = exp(scale q k' - lse), delta = sum_D(dy y), ds = p (dy v' - delta):
//   dv = p' dy,  dq = scale ds k,  dk = scale ds' q.
struct AttentionBackward {
  Attention forward;
  Tensor dy_THD;
  GradOut dq_THD = {}, dk_SGD = {}, dv_SGD = {};
};

// y = gate * sigmoid(gate) * up. gate_TF, up_TF, y_TF: float, rows may be strided.
struct SwiGlu {
  Tensor gate_TF, up_TF, y_TF;
};
struct SwiGluBackward {
  Tensor gate_TF, up_TF, dy_TF;
  GradOut dgate_TF = {}, dup_TF = {};
};

// The head and the loss in one pass over `chunk_rows` rows at a time; the logits never exist whole.
//   z = x w',  nll = log sum_V exp(z) - z[label],
//   dz = loss_scale * (softmax(z) - onehot),  dx = dz w,  dw = dz' x.
// x_RC, weight_VC: float. labels_R: i32 in [0, V). nll_R: accumulator type. correct_R: i32, 1 if
// the first largest logit is the label's. dx_RC, dweight_VC: optional. logits_RV: optional,
// accumulator type.
struct LinearCrossEntropy {
  Tensor x_RC, weight_VC, labels_R;
  double loss_scale = 1;
  std::int64_t chunk_rows = 64;
  Tensor nll_R, correct_R;
  GradOut dx_RC = {};
  GradOut dweight_VC = {};
  Tensor logits_RV = {};
};

// y = x * keep / (1 - p), keep = 1 where Philox4x32-10(key = seed, counter = (stream, element / 4))
// gives a word >= p * 2^32. The same call on dy is its backward. x_TC, y_TC: float, contiguous.
struct Dropout {
  Tensor x_TC;
  GradOut y_TC;
  double p = 0;
  std::uint64_t seed = 0;
  std::uint64_t stream = 0;
};

// One trained tensor and its state: 8-bit codes with one absmax a block of 256, or f32 moments.
struct AdamWTensor {
  Tensor value, grad;                   // f32, same shape
  Tensor m, v;                          // u8 codes, or f32
  Tensor m_absmax = {}, v_absmax = {};  // f32 [ceil(n / 256)], empty for f32 moments
  bool eight_bit() const { return static_cast<bool>(m_absmax); }
};
// bitsandbytes' AdamW; its arithmetic and order are those of quant/adamw8bit.h. step is 1-based;
// every gradient is multiplied by grad_scale first (clipping, unscaling).
struct AdamW {
  std::span<const AdamWTensor> tensors;
  double learning_rate = 0, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0;
  double grad_scale = 1;
  std::int64_t step = 1;
};

}  // namespace medvqa::ops
