// Sums and maxima over a warp and a block, in one fixed order.
#pragma once

#include "machine.h"

namespace medvqa::cuda {

inline constexpr unsigned kAllLanes = 0xffffffffu;

// Every lane gets the sum over the warp: a tree over lane distances 16, 8, 4, 2, 1.
template <class A>
__device__ inline A warp_sum(A value) {
  for (int distance = 16; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, distance);
  }
  return value;
}
__device__ inline float warp_max(float value) {
  for (int distance = 16; distance > 0; distance /= 2) {
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, distance));
  }
  return value;
}

// Every thread of a one-dimensional block of Threads (a multiple of 32, at most 1024) gets the sum.
// `partial` is shared memory of Threads / 32 values; it may be used again after the call.
template <int Threads, class A>
__device__ inline A block_sum(A value, A* partial) {
  static_assert(Threads % 32 == 0 && Threads <= 1024);
  value = warp_sum(value);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  A sum = 0;
  if constexpr (Threads / 32 <= 8) {
    for (int warp = 0; warp < Threads / 32; ++warp) sum += partial[warp];
  } else {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    sum = warp_sum(lane < Threads / 32 ? partial[lane] : A(0));
  }
  __syncthreads();
  return sum;
}

}  // namespace medvqa::cuda
