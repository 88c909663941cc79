// Small products on one thread, for use inside a parallel loop over heads.
#pragma once

#include <oneapi/dnnl/dnnl.h>

#include <cstdint>
#include <type_traits>

#include "kernels/cpu/matmul_cache.h"
#include "medvqa/core/error.h"

namespace medvqa::cpu {

// What products read: the type itself, but f32 for f16, which oneDNN does not multiply.
template <class T>
using Operand = std::conditional_t<std::is_same_v<T, Float16>, float, T>;

template <class T>
Operand<T> as_operand(const T& x) {
  return static_cast<Operand<T>>(x);
}

// c[m, n] = op(a) b, or c += op(a) b. Rows of a and c stand one after another; b's begin `ldb`
// elements apart. c is f32, or f64 where the operands are.
struct HeadProduct {
  std::int64_t m, n, k;
  std::int64_t ldb;
  bool transpose_a = false;
  bool accumulate = false;
};

inline void multiply(MatmulCache&, const HeadProduct& s, const float* a, const float* b, float* c) {
  const dnnl_status_t status =
      dnnl_sgemm(s.transpose_a ? 'T' : 'N', 'N', s.m, s.n, s.k, 1.0f, a, s.transpose_a ? s.m : s.k,
                 b, s.ldb, s.accumulate ? 1.0f : 0.0f, c, s.n);
  MEDVQA_CHECK(status == dnnl_success, "dnnl_sgemm failed");
}

inline void multiply(MatmulCache& products, const HeadProduct& s, const BFloat16* a,
                     const BFloat16* b, float* c) {
  // The cache only reads a and b.
  const auto tensor = [](const BFloat16* data, Shape shape) {
    return Tensor(const_cast<BFloat16*>(data), DType::bf16, shape);
  };
  ops::Gemm p{.a = tensor(a, s.transpose_a ? Shape{s.k, s.m} : Shape{s.m, s.k}),
              .transpose_a = s.transpose_a ? ops::Transpose::yes : ops::Transpose::no,
              .b = tensor(b, {s.k, s.n}),
              .c = Tensor(c, DType::f32, {s.m, s.n})};
  p.b.row_stride = s.ldb;
  products.run(p, s.accumulate);
}

// The oracle's: one sum an element, in order of k.
inline void multiply(MatmulCache&, const HeadProduct& s, const double* a, const double* b,
                     double* c) {
  for (std::int64_t i = 0; i < s.m; ++i) {
    for (std::int64_t j = 0; j < s.n; ++j) {
      double sum = s.accumulate ? c[i * s.n + j] : 0;
      for (std::int64_t k = 0; k < s.k; ++k) {
        sum += (s.transpose_a ? a[k * s.m + i] : a[i * s.k + k]) * b[k * s.ldb + j];
      }
      c[i * s.n + j] = sum;
    }
  }
}

}  // namespace medvqa::cpu
