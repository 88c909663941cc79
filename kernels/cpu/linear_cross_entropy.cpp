#include <algorithm>
#include <cmath>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/elements.h"
#include "kernels/cpu/vector_math.h"

namespace medvqa::cpu {

namespace {

// Negative log likelihood of one row of logits, which become loss_scale * (softmax - onehot).
template <class A>
void row_loss(A* z, std::int64_t vocabulary, std::int64_t label, A loss_scale, A& nll,
              std::int32_t& correct) {
  const A* largest = std::max_element(z, z + vocabulary);
  correct = largest - z == label ? 1 : 0;
  const A top = *largest;
  A sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t v = 0; v < vocabulary; ++v) sum += exponential(z[v] - top);
  nll = std::log(sum) - (z[label] - top);
  const A factor = loss_scale / sum;
  for (std::int64_t v = 0; v < vocabulary; ++v) z[v] = exponential(z[v] - top) * factor;
  z[label] -= loss_scale;
}

}  // namespace

void CpuBackend::do_linear_cross_entropy(const ops::LinearCrossEntropy& p, const Tensor& scratch) {
  const std::int64_t rows = p.x_RC.dim(0);
  const std::int64_t vocabulary = p.weight_VC.dim(0);
  const std::int64_t chunk = std::min(p.chunk_rows, rows);
  dispatch_float(p.x_RC.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    Arena arena("chunk", scratch.data, scratch.bytes());
    for (std::int64_t begin = 0; begin < rows; begin += chunk) {
      const std::int64_t end = std::min(rows, begin + chunk);
      Arena::Scope scope(arena);
      const Tensor z = arena.allocate({end - begin, vocabulary}, dtype_of<A>());
      const Tensor dz =
          std::is_same_v<T, A> ? z : arena.allocate({end - begin, vocabulary}, dtype_of<T>());
      const std::size_t rest = arena.capacity() - arena.used();
      const Tensor products = arena.allocate({static_cast<std::int64_t>(rest)}, DType::u8);
      do_gemm({.a = p.x_RC.rows_between(begin, end),
               .b = p.weight_VC,
               .transpose_b = ops::Transpose::yes,
               .c = z},
              products);
      if (p.logits_RV) do_copy(z, p.logits_RV.rows_between(begin, end));
      parallel_for(end - begin, vocabulary * 16, [&](std::int64_t i) {
        A* zr = row<A>(z, i);
        row_loss(zr, vocabulary, p.labels_R.as<std::int32_t>()[begin + i],
                 static_cast<A>(p.loss_scale), p.nll_R.as<A>()[begin + i],
                 p.correct_R.as<std::int32_t>()[begin + i]);
        if constexpr (!std::is_same_v<T, A>) {
          T* d = row<T>(dz, i);
          for (std::int64_t v = 0; v < vocabulary; ++v) d[v] = static_cast<T>(zr[v]);
        }
      });
      if (p.dx_RC) {
        do_gemm({.a = dz,
                 .b = p.weight_VC,
                 .c = p.dx_RC.tensor.rows_between(begin, end),
                 .accumulate = p.dx_RC.accumulate},
                products);
      }
      if (p.dweight_VC) {
        do_gemm({.a = dz,
                 .transpose_a = ops::Transpose::yes,
                 .b = p.x_RC.rows_between(begin, end),
                 .c = p.dweight_VC.tensor,
                 .accumulate = p.dweight_VC.accumulate || begin > 0},
                products);
      }
    }
  });
}

}  // namespace medvqa::cpu
