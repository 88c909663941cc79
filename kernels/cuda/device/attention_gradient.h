// What the kernels of attention's backward are told.
//   p = exp(scale q k' - lse),  ds = p (dy v' - delta),  delta = sum_D(dy y)
#pragma once

#include "kernels/cuda/device/attention_arguments.h"

namespace medvqa::cuda {

template <class T>
struct BackwardArguments {
  AttentionArguments<T> forward;
  Heads<const T> y, dy;
  float* delta;  // [H, T]
  std::int64_t tokens;
};

// What a query row of one head has kept of its softmax.
struct RowStatistics {
  float lse, delta;  // lse in units of log2(e)
};
template <class T>
__device__ RowStatistics statistics_of(const BackwardArguments<T>& b, int head, int token) {
  return {b.forward.lse[head * b.forward.lse_stride + token] * kLog2E,
          b.delta[head * b.tokens + token]};
}

}  // namespace medvqa::cuda
