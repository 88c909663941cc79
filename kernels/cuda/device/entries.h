// Tables of tensors that one launch works through: the work is numbered through all of them, and
// each entry knows the number of its first piece.
#pragma once

#include <cstdint>

#include "kernels/cuda/device/reduce.h"

namespace medvqa::cuda {

// The entry that has this piece of work: the last whose `first` is not above it. entries[0].first
// is 0, `first` ascends, and no entry is empty. Called by whole warps, with one piece a warp.
template <class Entry>
__device__ inline int find_entry(const Entry* entries, int count, std::int64_t piece) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  int begin = 0;
  while (count > 1) {
    // A warp looks at 32 of them, equally far apart.
    const int step = (count + 31) / 32;
    const bool before = lane * step < count && entries[begin + lane * step].first <= piece;
    const int last = static_cast<int>(reduce_add_sync(kAllLanes, before ? 1u : 0u)) - 1;
    begin += last * step;
    count = count - last * step < step ? count - last * step : step;
  }
  return begin;
}

}  // namespace medvqa::cuda
