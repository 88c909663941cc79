// Elementwise operations: a thread has N neighbours of one row.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>

#include "kernels/cuda/device/rows.h"

namespace medvqa::cuda {

inline constexpr int kElementThreads = 256;

struct RowExtent {
  std::int64_t rows = 0, columns = 0;
};

// What `tensors` (absent ones aside) of one shape have in common; one long row where all of them
// are contiguous.
inline RowExtent row_extent(std::initializer_list<const Tensor*> tensors) {
  const Tensor& first = **tensors.begin();
  const bool flat = std::all_of(tensors.begin(), tensors.end(),
                                [](const Tensor* t) { return !*t || t->contiguous(); });
  if (flat) return {1, first.elements()};
  return {first.dim(0), first.row_elements()};
}

struct ElementGrid {
  unsigned vectors = 0;  // N elements each
  unsigned per_row = 0;
};

struct ElementPlace {
  unsigned row = 0, vector = 0;
};

// This thread's place; false: it has none.
__device__ inline bool find_place(const ElementGrid& grid, ElementPlace& place) {
  const unsigned i = blockIdx.x * kElementThreads + threadIdx.x;
  if (i >= grid.vectors) return false;
  place = {i / grid.per_row, i % grid.per_row};
  return true;
}

// Runs kernel(grid, arguments...) with a thread for each N elements of the extent.
template <class... Parameters, class... Arguments>
void launch_elements(void (*kernel)(ElementGrid, Parameters...), const RowExtent& extent, int n,
                     Stream stream, Arguments&&... arguments) {
  const std::int64_t vectors = extent.rows * (extent.columns / n);
  MEDVQA_CHECK(vectors <= INT32_MAX,
               "an elementwise operation on " + std::to_string(vectors) + " pieces of a tensor");
  const ElementGrid grid{static_cast<unsigned>(vectors), static_cast<unsigned>(extent.columns / n)};
  launch(kernel, blocks_for(vectors, kElementThreads), kElementThreads, 0, stream, grid,
         std::forward<Arguments>(arguments)...);
}

}  // namespace medvqa::cuda
