// How the CPU's kernels read, write and share out elements.
#pragma once

#include <omp.h>

#include <cstdint>

#include "medvqa/ops/params.h"

namespace medvqa::cpu {

// The value in the type sums are kept in.
template <class T>
Accumulator<T> load(const T& x) {
  return static_cast<Accumulator<T>>(x);
}

// Overwrites, or adds in the accumulator type and rounds once.
template <class T>
void put(T& destination, Accumulator<T> value, bool accumulate) {
  destination = static_cast<T>(accumulate ? load(destination) + value : value);
}

// After the parameters of a lambda given to put_row: a call in the loop would keep it scalar.
#define MEDVQA_INLINE __attribute__((always_inline))

// destination[c] = value(c), or += value(c), for c in [0, n). The choice stands outside the loops,
// which become vector code: value(c) may read place c of the destination, but no other, which the
// compiler has to be told.
template <class T, class F>
[[gnu::always_inline]] inline void put_row(T* destination, std::int64_t n, bool accumulate,
                                           F&& value) {
  // NOLINTNEXTLINE(bugprone-branch-clone): they differ in what put is told
  if (accumulate) {
#pragma omp simd
    for (std::int64_t c = 0; c < n; ++c) put(destination[c], value(c), true);
  } else {
#pragma omp simd
    for (std::int64_t c = 0; c < n; ++c) put(destination[c], value(c), false);
  }
}

template <class T>
T* row(const Tensor& t, std::int64_t i) {
  return t.as<T>() + i * t.row_stride;
}

// Calls f.template operator()<X, T>() for a norm whose y has type T and whose x has T's or that of
// its sums.
template <class F>
void dispatch_norm(DType x, DType y, F&& f) {
  dispatch_float(y, [&]<class T>() {
    if (x == y) return f.template operator()<T, T>();
    if constexpr (!std::is_same_v<T, Accumulator<T>>) f.template operator()<Accumulator<T>, T>();
  });
}

// Whether that many operations are worth waking the other threads for.
inline bool worth_threads(std::int64_t operations) {
  return operations > 1 << 15;
}

// Calls f(i) for i in [0, n); one call always sees one i, so results do not depend on the number
// of threads. `work` is a rough count of operations a call does: small loops stay on one thread.
template <class F>
void parallel_for(std::int64_t n, std::int64_t work, F&& f) {
#pragma omp parallel for schedule(static) if (n > 1 && worth_threads(n * work))
  for (std::int64_t i = 0; i < n; ++i) f(i);
}

}  // namespace medvqa::cpu
