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

template <class T>
T* row(const Tensor& t, std::int64_t i) {
  return t.as<T>() + i * t.row_stride;
}

// Calls f(i) for i in [0, n); one call always sees one i, so results do not depend on the number
// of threads. `work` is a rough count of operations a call does: small loops stay on one thread.
template <class F>
void parallel_for(std::int64_t n, std::int64_t work, F&& f) {
  constexpr std::int64_t kWorthThreads = 1 << 15;
#pragma omp parallel for schedule(static) if (n > 1 && n * work > kWorthThreads)
  for (std::int64_t i = 0; i < n; ++i) f(i);
}

}  // namespace medvqa::cpu
