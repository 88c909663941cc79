#include "medvqa/ops/backend.h"

#include <fmt/format.h>

#include "medvqa/ops/scratch.h"

namespace medvqa::ops {

namespace {

void check_shape(const char* op, const char* name, const Tensor& t, Shape expected) {
  MEDVQA_CHECK(t.shape == expected,
               fmt::format("{}: {} is {}, expected {}", op, name, t.shape.str(), expected.str()));
}

void check_type(const char* op, const char* name, const Tensor& t, DType expected) {
  MEDVQA_CHECK(t.dtype == expected, fmt::format("{}: {} is {}, expected {}", op, name,
                                                name_of(t.dtype), name_of(expected)));
}

void check_like(const char* op, const char* name, const Tensor& t, const Tensor& like) {
  check_shape(op, name, t, like.shape);
  check_type(op, name, t, like.dtype);
}

void check_contiguous(const char* op, const char* name, const Tensor& t) {
  MEDVQA_CHECK(t.contiguous(), fmt::format("{}: {} must be contiguous", op, name));
}

void check_like_rows(const char* op, const char* name, const Tensor& t, const Tensor& like) {
  check_like(op, name, t, like);
  check_contiguous(op, name, t);
}

void check_gradient(const char* op, const char* name, const GradOut& g, const Tensor& like) {
  if (g) check_like(op, name, g.tensor, like);
}

void check_gemm(const Gemm& p) {
  const bool ta = p.transpose_a == Transpose::yes;
  const bool tb = p.transpose_b == Transpose::yes;
  MEDVQA_CHECK(p.a.shape.rank() == 2 && p.b.shape.rank() == 2 && p.c.shape.rank() == 2,
               "gemm: operands must have rank 2");
  const std::int64_t inner = p.a.dim(ta ? 0 : 1);
  check_shape("gemm", "b", p.b, tb ? Shape{p.c.dim(1), inner} : Shape{inner, p.c.dim(1)});
  MEDVQA_CHECK(p.a.dim(ta ? 1 : 0) == p.c.dim(0),
               fmt::format("gemm: a is {}, c is {}", p.a.shape.str(), p.c.shape.str()));
  check_type("gemm", "b", p.b, p.a.dtype);
  MEDVQA_CHECK(is_floating(p.a.dtype), "gemm: a is not floating");
  MEDVQA_CHECK(p.c.dtype == p.a.dtype || p.c.dtype == accumulator_of(p.a.dtype),
               fmt::format("gemm: c is {}, a is {}", name_of(p.c.dtype), name_of(p.a.dtype)));
  if (p.bias_N) check_like_rows("gemm", "bias", p.bias_N, Tensor(nullptr, p.c.dtype, {p.c.dim(1)}));
  if (p.residual_MN) {
    check_like("gemm", "residual", p.residual_MN, p.c);
    MEDVQA_CHECK(!p.accumulate, "gemm: a residual and accumulation exclude each other");
  }
  if (p.preactivation_MN) check_like("gemm", "preactivation", p.preactivation_MN, p.c);
}

// `y`: the output, or its gradient.
void check_norm(const char* op, const Tensor& x, const Tensor& weight, const Tensor& y) {
  MEDVQA_CHECK(x.shape.rank() == 2, fmt::format("{}: x is {}", op, x.shape.str()));
  check_contiguous(op, "x", x);
  check_shape(op, "y", y, x.shape);
  check_contiguous(op, "y", y);
  check_like_rows(op, "weight", weight, Tensor(nullptr, y.dtype, {x.dim(1)}));
  MEDVQA_CHECK(is_floating(y.dtype) && (x.dtype == y.dtype || x.dtype == accumulator_of(y.dtype)),
               fmt::format("{}: x is {}, y is {}", op, name_of(x.dtype), name_of(y.dtype)));
}

void check_statistic(const char* op, const char* name, const Tensor& t, const Tensor& x) {
  check_like_rows(op, name, t, Tensor(nullptr, accumulator_of(x.dtype), {x.dim(0)}));
}

void check_attention(const Attention& p) {
  const char* op = "attention";
  MEDVQA_CHECK(p.q_THD.shape.rank() == 3 && p.k_SGD.shape.rank() == 3, "attention: rank");
  const std::int64_t heads = p.q_THD.dim(1);
  const std::int64_t groups = p.k_SGD.dim(1);
  MEDVQA_CHECK(groups > 0 && heads % groups == 0,
               fmt::format("attention: {} query heads over {} key/value heads", heads, groups));
  MEDVQA_CHECK(p.q_THD.dim(2) == p.k_SGD.dim(2), "attention: head sizes differ");
  check_like(op, "v", p.v_SGD, p.k_SGD);
  check_like(op, "y", p.y_THD, p.q_THD);
  check_type(op, "k", p.k_SGD, p.q_THD.dtype);
  check_like_rows(op, "lse", p.lse_HT,
                  Tensor(nullptr, accumulator_of(p.q_THD.dtype), {heads, p.q_THD.dim(0)}));
  MEDVQA_CHECK(p.scale > 0, fmt::format("attention: scale is {}", p.scale));
  check_type(op, "cu_q", p.cu_q_N, DType::i32);
  check_like_rows(op, "cu_k", p.cu_k_N, p.cu_q_N);
}

}  // namespace

Arena& Backend::scratch() const {
  MEDVQA_CHECK(scratch_ != nullptr, "no scratch arena: call use_scratch() first");
  return *scratch_;
}

Tensor Backend::take_scratch(std::size_t bytes) {
  return scratch().allocate({static_cast<std::int64_t>(bytes)}, DType::u8);
}

void Backend::use_profile(Profile* profile) {
  profile_ = profile;
  if (profile != nullptr) profile->wait_with([this] { do_wait(); });
}

void Backend::upload(const void* host, std::size_t bytes, const Tensor& dst) {
  check_contiguous("upload", "dst", dst);
  MEDVQA_CHECK(bytes == dst.bytes(), fmt::format("upload: {} bytes to {}", bytes, dst.str()));
  const ProfiledSection section(profile_, "upload");
  do_upload(host, dst);
}

void Backend::download(const Tensor& src, void* host, std::size_t bytes) {
  check_contiguous("download", "src", src);
  MEDVQA_CHECK(bytes == src.bytes(), fmt::format("download: {} bytes of {}", bytes, src.str()));
  const ProfiledSection section(profile_, "download");
  do_download(src, host);
}

void Backend::copy(const Tensor& src, const Tensor& dst) {
  check_like("copy", "dst", dst, src);
  const ProfiledSection section(profile_, "copy");
  do_copy(src, dst);
}

void Backend::convert(const Tensor& src, const Tensor& dst) {
  check_shape("convert", "dst", dst, src.shape);
  check_contiguous("convert", "src", src);
  check_contiguous("convert", "dst", dst);
  const ProfiledSection section(profile_, "convert");
  do_convert(src, dst);
}

void Backend::fill(const Tensor& dst, double value) {
  check_contiguous("fill", "dst", dst);
  const ProfiledSection section(profile_, "fill");
  do_fill(dst, value);
}

void Backend::accumulate(const Tensor& src, const GradOut& dst) {
  if (!dst) return;
  check_like("accumulate", "dst", dst.tensor, src);
  const ProfiledSection section(profile_, "accumulate");
  do_accumulate(src, dst);
}

void Backend::gemm(const Gemm& p) {
  check_gemm(p);
  Arena::Scope scope(scratch());
  const ProfiledSection section(profile_, "gemm", operations(p));
  do_gemm(p, take_scratch(scratch_bytes(p, traits())));
}

void Backend::dequantize_nf4(const Nf4Weight& w, const Tensor& y_OI) {
  check_shape("dequantize_nf4", "y", y_OI, {w.out, w.in});
  check_contiguous("dequantize_nf4", "y", y_OI);
  const std::int64_t blocks = (w.out * w.in + w.block_size - 1) / w.block_size;
  check_shape("dequantize_nf4", "packed", w.packed, {(w.out * w.in + 1) / 2});
  check_shape("dequantize_nf4", "absmax", w.absmax, {blocks});
  check_like("dequantize_nf4", "code", w.code, Tensor(nullptr, DType::f32, {16}));
  const ProfiledSection section(profile_, "dequantize_nf4");
  do_dequantize_nf4(w, y_OI);
}

void Backend::nf4_product(const Nf4Product& p) {
  const char* op = "nf4_product";
  check_shape(op, "x", p.x_MI, {p.y_MO.dim(0), p.weight.in});
  check_contiguous(op, "x", p.x_MI);
  check_shape(op, "y", p.y_MO, {p.x_MI.dim(0), p.weight.out});
  check_type(op, "y", p.y_MO, p.x_MI.dtype);
  if (p.bias_O) check_like(op, "bias", p.bias_O, Tensor(nullptr, p.y_MO.dtype, {p.weight.out}));
  if (p.residual_MO) check_like(op, "residual", p.residual_MO, p.y_MO);
  Arena::Scope scope(scratch());
  const ProfiledSection section(profile_, op, operations(p));
  do_nf4_product(p, take_scratch(scratch_bytes(p, traits())));
}

void Backend::compose_nf4_product(const Nf4Product& p, const Tensor& scratch) {
  Arena arena("scratch", scratch.data, scratch.bytes());
  const Tensor w = arena.allocate({p.weight.out, p.weight.in}, p.x_MI.dtype);
  do_dequantize_nf4(p.weight, w);
  const Gemm product{.a = p.x_MI,
                     .b = w,
                     .transpose_b = Transpose::yes,
                     .c = p.y_MO,
                     .bias_N = p.bias_O,
                     .residual_MN = p.residual_MO};
  const auto rest = static_cast<std::int64_t>(scratch_bytes(product, traits()));
  do_gemm(product, arena.allocate({rest}, DType::u8));
}

void Backend::quantize_nf4(const Tensor& x, const Tensor& packed, const Tensor& absmax) {
  check_contiguous("quantize_nf4", "x", x);
  const std::int64_t n = x.elements();
  check_like_rows("quantize_nf4", "packed", packed, Tensor(nullptr, DType::u8, {(n + 1) / 2}));
  check_like_rows("quantize_nf4", "absmax", absmax, Tensor(nullptr, DType::f32, {(n + 63) / 64}));
  const ProfiledSection section(profile_, "quantize_nf4");
  do_quantize_nf4(x, packed, absmax);
}

void Backend::rms_norm(const RmsNorm& p) {
  check_norm("rms_norm", p.x_TC, p.weight_C, p.y_TC);
  check_statistic("rms_norm", "inv_rms", p.inv_rms_T, p.x_TC);
  const ProfiledSection section(profile_, "rms_norm");
  do_rms_norm(p);
}

void Backend::rms_norm_backward(const RmsNormBackward& p) {
  if (!p.dx_TC) return;
  check_norm("rms_norm_backward", p.x_TC, p.weight_C, p.dy_TC);
  check_statistic("rms_norm_backward", "inv_rms", p.inv_rms_T, p.x_TC);
  check_like_rows("rms_norm_backward", "dx", p.dx_TC.tensor, p.x_TC);
  const ProfiledSection section(profile_, "rms_norm_backward");
  do_rms_norm_backward(p);
}

void Backend::layer_norm(const LayerNorm& p) {
  check_norm("layer_norm", p.x_TC, p.weight_C, p.y_TC);
  check_like_rows("layer_norm", "bias", p.bias_C, p.weight_C);
  check_statistic("layer_norm", "mean", p.mean_T, p.x_TC);
  check_statistic("layer_norm", "inv_std", p.inv_std_T, p.x_TC);
  const ProfiledSection section(profile_, "layer_norm");
  do_layer_norm(p);
}

void Backend::layer_norm_backward(const LayerNormBackward& p) {
  if (!p.dx_TC) return;
  check_norm("layer_norm_backward", p.x_TC, p.weight_C, p.dy_TC);
  check_statistic("layer_norm_backward", "mean", p.mean_T, p.x_TC);
  check_statistic("layer_norm_backward", "inv_std", p.inv_std_T, p.x_TC);
  check_like_rows("layer_norm_backward", "dx", p.dx_TC.tensor, p.x_TC);
  const ProfiledSection section(profile_, "layer_norm_backward");
  do_layer_norm_backward(p);
}

void Backend::rotary_table(const RotaryTable& p) {
  const std::int64_t tokens = p.positions_AT.dim(1);
  const std::int64_t pairs = p.inv_freq_F.dim(0);
  check_type("rotary_table", "positions", p.positions_AT, DType::i32);
  check_like_rows("rotary_table", "axis", p.axis_F, Tensor(nullptr, DType::i32, {pairs}));
  check_like_rows("rotary_table", "cos", p.cos_TF, Tensor(nullptr, DType::f32, {tokens, pairs}));
  check_like_rows("rotary_table", "sin", p.sin_TF, p.cos_TF);
  const ProfiledSection section(profile_, "rotary_table");
  do_rotary_table(p);
}

void Backend::rotary(const Rotary& p) {
  const Shape table{p.x_TC.dim(0), p.head_size / 2};
  MEDVQA_CHECK(p.head_size % 2 == 0 && p.heads * p.head_size <= p.x_TC.dim(1),
               fmt::format("rotary: {} heads of {} in {}", p.heads, p.head_size, p.x_TC.str()));
  check_like_rows("rotary", "cos", p.cos_TF, Tensor(nullptr, DType::f32, table));
  check_like_rows("rotary", "sin", p.sin_TF, p.cos_TF);
  const ProfiledSection section(profile_, "rotary");
  do_rotary(p);
}

void Backend::attention(const Attention& p) {
  check_attention(p);
  Arena::Scope scope(scratch());
  const ProfiledSection section(profile_, "attention", operations(p));
  do_attention(p, take_scratch(scratch_bytes(p, traits())));
}

void Backend::attention_backward(const AttentionBackward& p) {
  check_attention(p.forward);
  check_like("attention_backward", "dy", p.dy_THD, p.forward.q_THD);
  check_gradient("attention_backward", "dq", p.dq_THD, p.forward.q_THD);
  check_gradient("attention_backward", "dk", p.dk_SGD, p.forward.k_SGD);
  check_gradient("attention_backward", "dv", p.dv_SGD, p.forward.v_SGD);
  Arena::Scope scope(scratch());
  const ProfiledSection section(profile_, "attention_backward", operations(p));
  do_attention_backward(p, take_scratch(scratch_bytes(p, traits())));
}

void Backend::activation(Activation kind, const Tensor& x, const Tensor& y) {
  check_like("activation", "y", y, x);
  const ProfiledSection section(profile_, "activation");
  do_activation(kind, x, y);
}

void Backend::activation_backward(Activation kind, const Tensor& x, const Tensor& dy,
                                  const GradOut& dx) {
  if (!dx) return;
  check_like("activation_backward", "dy", dy, x);
  check_like("activation_backward", "dx", dx.tensor, x);
  const ProfiledSection section(profile_, "activation_backward");
  do_activation_backward(kind, x, dy, dx);
}

void Backend::swiglu(const SwiGlu& p) {
  check_like("swiglu", "up", p.up_TF, p.gate_TF);
  check_like("swiglu", "y", p.y_TF, p.gate_TF);
  const ProfiledSection section(profile_, "swiglu");
  do_swiglu(p);
}

void Backend::swiglu_backward(const SwiGluBackward& p) {
  check_like("swiglu_backward", "up", p.up_TF, p.gate_TF);
  check_like("swiglu_backward", "dy", p.dy_TF, p.gate_TF);
  check_gradient("swiglu_backward", "dgate", p.dgate_TF, p.gate_TF);
  check_gradient("swiglu_backward", "dup", p.dup_TF, p.gate_TF);
  const ProfiledSection section(profile_, "swiglu_backward");
  do_swiglu_backward(p);
}

void Backend::dropout(const Dropout& p) {
  check_like_rows("dropout", "y", p.y_TC.tensor, p.x_TC);
  check_contiguous("dropout", "x", p.x_TC);
  MEDVQA_CHECK(p.p >= 0 && p.p < 1, fmt::format("dropout: p is {}", p.p));
  const ProfiledSection section(profile_, "dropout");
  do_dropout(p);
}

void Backend::gather_rows(const Tensor& table_VC, const Tensor& rows_T, const Tensor& y_TC) {
  check_like("gather_rows", "y", y_TC,
             Tensor(nullptr, table_VC.dtype, {rows_T.dim(0), table_VC.dim(1)}));
  check_type("gather_rows", "rows", rows_T, DType::i32);
  const ProfiledSection section(profile_, "gather_rows");
  do_gather_rows(table_VC, rows_T, y_TC);
}

void Backend::scatter_rows(const Tensor& x_IC, const Tensor& rows_I, const Tensor& y_TC) {
  check_like("scatter_rows", "x", x_IC, Tensor(nullptr, y_TC.dtype, {rows_I.dim(0), y_TC.dim(1)}));
  check_type("scatter_rows", "rows", rows_I, DType::i32);
  const ProfiledSection section(profile_, "scatter_rows");
  do_scatter_rows(x_IC, rows_I, y_TC);
}

void Backend::scale_rows(const Tensor& x_TC, double factor, const Tensor& scale_T,
                         const GradOut& y_TC) {
  if (!y_TC) return;
  check_like("scale_rows", "y", y_TC.tensor, x_TC);
  if (scale_T) check_statistic("scale_rows", "scale", scale_T, x_TC);
  const ProfiledSection section(profile_, "scale_rows");
  do_scale_rows(x_TC, factor, scale_T, y_TC);
}

void Backend::linear_cross_entropy(const LinearCrossEntropy& p) {
  const char* op = "linear_cross_entropy";
  const std::int64_t rows = p.x_RC.dim(0);
  const DType sums = accumulator_of(p.x_RC.dtype);
  check_contiguous(op, "x", p.x_RC);
  check_like_rows(op, "weight", p.weight_VC,
                  Tensor(nullptr, p.x_RC.dtype, {p.weight_VC.dim(0), p.x_RC.dim(1)}));
  check_like_rows(op, "labels", p.labels_R, Tensor(nullptr, DType::i32, {rows}));
  check_like_rows(op, "correct", p.correct_R, p.labels_R);
  check_like_rows(op, "nll", p.nll_R, Tensor(nullptr, sums, {rows}));
  check_gradient(op, "dx", p.dx_RC, p.x_RC);
  check_gradient(op, "dweight", p.dweight_VC, p.weight_VC);
  if (p.logits_RV) {
    check_like_rows(op, "logits", p.logits_RV, Tensor(nullptr, sums, {rows, p.weight_VC.dim(0)}));
  }
  Arena::Scope scope(scratch());
  const ProfiledSection section(profile_, "linear_cross_entropy", operations(p));
  do_linear_cross_entropy(p, take_scratch(scratch_bytes(p, traits())));
}

void Backend::global_norm(std::span<const Tensor> tensors, const Tensor& norm_1) {
  for (const Tensor& t : tensors) check_type("global_norm", "tensor", t, DType::f32);
  check_like("global_norm", "norm", norm_1, Tensor(nullptr, DType::f32, {1}));
  const ProfiledSection section(profile_, "global_norm");
  do_global_norm(tensors, norm_1);
}

void Backend::adamw(const AdamW& p) {
  MEDVQA_CHECK(p.step >= 1, fmt::format("adamw: step {}", p.step));
  for (const AdamWTensor& t : p.tensors) {
    check_like_rows("adamw", "grad", t.grad, Tensor(nullptr, DType::f32, t.value.shape));
    const DType state = t.eight_bit() ? DType::u8 : DType::f32;
    check_like_rows("adamw", "m", t.m, Tensor(nullptr, state, t.value.shape));
    check_like_rows("adamw", "v", t.v, t.m);
    if (!t.eight_bit()) continue;
    const Tensor absmax(nullptr, DType::f32, {(t.value.elements() + 255) / 256});
    check_like_rows("adamw", "m_absmax", t.m_absmax, absmax);
    check_like_rows("adamw", "v_absmax", t.v_absmax, absmax);
  }
  const ProfiledSection section(profile_, "adamw");
  do_adamw(p);
}

}  // namespace medvqa::ops
