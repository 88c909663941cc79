// Products through oneDNN (f32, bf16), through f32 copies (f16), and plain loops (f64).
#include <utility>

#include "kernels/cpu/activation.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/elements.h"
#include "kernels/cpu/matmul_cache.h"

namespace medvqa::cpu {

namespace {

dnnl::memory::data_type dnnl_type(DType t) {
  return t == DType::bf16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
}

// The matrix as the product reads it: rows x columns after the transpose.
dnnl::memory::desc describe(const Tensor& t, ops::Transpose transpose) {
  dnnl::memory::dims dims{t.dim(0), t.dim(1)};
  dnnl::memory::dims strides{t.row_stride, 1};
  if (transpose == ops::Transpose::yes) {
    std::swap(dims[0], dims[1]);
    std::swap(strides[0], strides[1]);
  }
  return {dims, dnnl_type(t.dtype), strides};
}

}  // namespace

MatmulCache::MatmulCache() : engine_(dnnl::engine::kind::cpu, 0), stream_(engine_) {}

MatmulCache::Entry MatmulCache::make(const ops::Gemm& p, bool add_to_c) const {
  Entry e;
  const dnnl::memory::desc a = describe(p.a, p.transpose_a);
  const dnnl::memory::desc b = describe(p.b, p.transpose_b);
  const dnnl::memory::desc c = describe(p.c, ops::Transpose::no);
  dnnl::memory::desc bias;
  dnnl::primitive_attr attributes;
  dnnl::post_ops after;
  if (p.alpha != 1) attributes.set_output_scales(0, {static_cast<float>(p.alpha)});
  if (add_to_c) after.append_sum(1.0f);
  if (p.bias_N) {
    bias = dnnl::memory::desc({1, p.c.dim(1)}, dnnl_type(p.bias_N.dtype), {p.c.dim(1), 1});
    // oneDNN's own bias would be scaled by alpha as well.
    if (p.alpha != 1) {
      e.bias_argument = DNNL_ARG_ATTR_MULTIPLE_POST_OP(after.len()) | DNNL_ARG_SRC_1;
      after.append_binary(dnnl::algorithm::binary_add, bias);
    }
  }
  attributes.set_post_ops(after);
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  const auto d =
      p.bias_N && p.alpha == 1 ? dnnl::matmul::desc(a, b, bias, c) : dnnl::matmul::desc(a, b, c);
  const dnnl::matmul::primitive_desc chosen(d, attributes, engine_);
  e.primitive = dnnl::matmul(chosen);
  const auto add = [&](int argument, const dnnl::memory::desc& layout) {
    e.operands.emplace(argument, dnnl::memory(layout, engine_, DNNL_MEMORY_NONE));
  };
  add(DNNL_ARG_SCRATCHPAD, chosen.scratchpad_desc());
  add(DNNL_ARG_SRC, a);
  add(DNNL_ARG_WEIGHTS, b);
  add(DNNL_ARG_DST, c);
  if (p.bias_N) add(e.bias_argument, bias);
  e.scratchpad_bytes = chosen.scratchpad_desc().get_size();
  return e;
}

void MatmulCache::run(const ops::Gemm& p, bool add_to_c) {
  const auto flags = (p.transpose_a == ops::Transpose::yes ? 1 : 0) +
                     (p.transpose_b == ops::Transpose::yes ? 2 : 0) + (add_to_c ? 4 : 0) +
                     (p.bias_N ? 8 : 0) + (omp_in_parallel() != 0 ? 16 : 0);
  const Key key{p.a.dim(0),
                p.a.dim(1),
                p.a.row_stride,
                p.b.dim(0),
                p.b.dim(1),
                p.b.row_stride,
                p.c.dim(0),
                p.c.dim(1),
                p.c.row_stride,
                flags,
                static_cast<std::int64_t>(p.a.dtype),
                static_cast<std::int64_t>(p.c.dtype),
                static_cast<std::int64_t>(std::bit_cast<std::uint64_t>(p.alpha))};
  auto found = entries_.find(key);
  if (found == entries_.end()) {
    if (entries_.size() >= kMostEntries) entries_.clear();
    found = entries_.emplace(key, make(p, add_to_c)).first;
  }
  Entry& e = found->second;
  if (scratchpad_.size() < e.scratchpad_bytes) scratchpad_.resize(e.scratchpad_bytes);
  e.operands.at(DNNL_ARG_SCRATCHPAD).set_data_handle(scratchpad_.data());
  e.operands.at(DNNL_ARG_SRC).set_data_handle(p.a.data);
  e.operands.at(DNNL_ARG_WEIGHTS).set_data_handle(p.b.data);
  e.operands.at(DNNL_ARG_DST).set_data_handle(p.c.data);
  if (p.bias_N) e.operands.at(e.bias_argument).set_data_handle(p.bias_N.data);
  e.primitive.execute(stream_, e.operands);
  stream_.wait();
}

namespace {

// The oracle's product: one accumulator an element, in order of k.
void gemm_f64(const ops::Gemm& p, bool add_to_c) {
  const bool ta = p.transpose_a == ops::Transpose::yes;
  const bool tb = p.transpose_b == ops::Transpose::yes;
  const std::int64_t inner = p.a.dim(ta ? 0 : 1);
  const auto a = [&](std::int64_t m, std::int64_t k) {
    return ta ? row<double>(p.a, k)[m] : row<double>(p.a, m)[k];
  };
  const auto b = [&](std::int64_t k, std::int64_t n) {
    return tb ? row<double>(p.b, n)[k] : row<double>(p.b, k)[n];
  };
  parallel_for(p.c.dim(0), p.c.dim(1) * inner, [&](std::int64_t m) {
    double* c = row<double>(p.c, m);
    for (std::int64_t n = 0; n < p.c.dim(1); ++n) {
      double sum = 0;
      for (std::int64_t k = 0; k < inner; ++k) sum += a(m, k) * b(k, n);
      put(c[n], p.alpha * sum + (p.bias_N ? p.bias_N.as<double>()[n] : 0.0), add_to_c);
    }
  });
}

Tensor contiguous_f32(std::byte*& at, const Tensor& like) {
  Tensor t(at, DType::f32, like.shape);
  at += (t.bytes() + kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment;
  return t;
}

void widen_rows(const Tensor& src, const Tensor& dst) {
  parallel_for(src.dim(0), src.dim(1), [&](std::int64_t i) {
    const Float16* s = row<Float16>(src, i);
    float* d = row<float>(dst, i);
    for (std::int64_t c = 0; c < src.dim(1); ++c) d[c] = static_cast<float>(s[c]);
  });
}

// f16 operands become f32; the product is added to c in f32 and rounded once.
void gemm_f16(const ops::Gemm& p, bool add_to_c, MatmulCache& matmuls, const Tensor& scratch) {
  auto* at = static_cast<std::byte*>(scratch.data);
  ops::Gemm q = p;
  q.a = contiguous_f32(at, p.a);
  q.b = contiguous_f32(at, p.b);
  widen_rows(p.a, q.a);
  widen_rows(p.b, q.b);
  if (p.c.dtype == DType::f32) return matmuls.run(q, add_to_c);
  q.c = contiguous_f32(at, p.c);
  q.bias_N = {};
  matmuls.run(q, false);
  parallel_for(p.c.dim(0), p.c.dim(1), [&](std::int64_t m) {
    const float* product = row<float>(q.c, m);
    Float16* c = row<Float16>(p.c, m);
    for (std::int64_t n = 0; n < p.c.dim(1); ++n) {
      const float bias = p.bias_N ? load(p.bias_N.as<Float16>()[n]) : 0.0f;
      put(c[n], product[n] + bias, add_to_c);
    }
  });
}

}  // namespace

void CpuBackend::do_gemm(const ops::Gemm& p, const Tensor& scratch) {
  if (p.c.elements() == 0) return;
  ops::Gemm product = p;
  if (p.preactivation_MN) product.c = p.preactivation_MN;
  const Tensor& z = product.c;
  const bool add = p.accumulate || p.residual_MN;
  const Tensor& addend = p.residual_MN ? p.residual_MN : p.c;
  if (add && addend.data != z.data) do_copy(addend, z);
  if (p.a.dtype == DType::f64) {
    gemm_f64(product, add);
  } else if (p.a.dtype == DType::f16) {
    gemm_f16(product, add, *matmuls_, scratch);
  } else {
    matmuls_->run(product, add);
  }
  if (p.activation != ops::Activation::none) do_activation(p.activation, z, p.c);
}

}  // namespace medvqa::cpu
