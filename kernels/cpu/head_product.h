// Small products on one thread, for use inside a parallel loop over heads.
#pragma once

#include <oneapi/dnnl/dnnl.h>
#include <cstdint>

#include "medvqa/core/error.h"

namespace medvqa::cpu {

// c[m, n] = alpha * op(a) op(b) + beta * c; row-major, leading dimensions in elements.
struct HeadProduct {
  std::int64_t m, n, k;
  char transpose_a = 'N', transpose_b = 'N';
};

inline void multiply(const HeadProduct& s, float alpha, const float* a, std::int64_t lda,
                     const float* b, std::int64_t ldb, float beta, float* c, std::int64_t ldc) {
  const dnnl_status_t status =
      dnnl_sgemm(s.transpose_a, s.transpose_b, s.m, s.n, s.k, alpha, a, lda, b, ldb, beta, c, ldc);
  MEDVQA_CHECK(status == dnnl_success, "dnnl_sgemm failed");
}

inline void multiply(const HeadProduct& s, double alpha, const double* a, std::int64_t lda,
                     const double* b, std::int64_t ldb, double beta, double* c, std::int64_t ldc) {
  for (std::int64_t i = 0; i < s.m; ++i) {
    for (std::int64_t j = 0; j < s.n; ++j) {
      double sum = 0;
      for (std::int64_t k = 0; k < s.k; ++k) {
        sum += (s.transpose_a == 'T' ? a[k * lda + i] : a[i * lda + k]) *
               (s.transpose_b == 'T' ? b[j * ldb + k] : b[k * ldb + j]);
      }
      c[i * ldc + j] = alpha * sum + (beta == 0 ? 0 : beta * c[i * ldc + j]);
    }
  }
}

}  // namespace medvqa::cpu
