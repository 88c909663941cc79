// A stored NF4 weight as kernels read it.
#pragma once

#include <cstdint>

#include "kernels/cuda/device/storage.h"
#include "medvqa/ops/params.h"
#include "medvqa/quant/nf4.h"

namespace medvqa::cuda {

struct Nf4Blocks {
  const std::uint8_t* packed;
  const void* absmax;  // float, or codes of a byte if nested
  const float* code;
  const float* nested_absmax;
  const float* nested_map;
  float nested_offset;
  std::int64_t nested_block_size;
  std::int64_t block_size;
};

inline Nf4Blocks nf4_blocks(const ops::Nf4Weight& w) {
  return {.packed = elements_of<std::uint8_t>(w.packed),
          .absmax = w.absmax.data,
          .code = elements_of<float>(w.code),
          .nested_absmax = w.nested() ? elements_of<float>(w.nested_absmax) : nullptr,
          .nested_map = w.nested() ? elements_of<float>(w.nested_map) : nullptr,
          .nested_offset = w.nested_offset,
          .nested_block_size = w.nested_block_size,
          .block_size = w.block_size};
}

template <bool Nested>
__device__ inline float block_absmax(const Nf4Blocks& w, std::int64_t block) {
  if constexpr (Nested) {
    const float mapped = w.nested_map[static_cast<const std::uint8_t*>(w.absmax)[block]];
    return quant::nested_value(mapped, w.nested_absmax[block / w.nested_block_size],
                               w.nested_offset);
  } else {
    return static_cast<const float*>(w.absmax)[block];
  }
}

// Of eight codes in a word, the first in the high nibble of the first byte.
__device__ inline unsigned nf4_code_at(std::uint32_t word, int element) {
  return (word >> (element / 2 * 8 + (element % 2 == 0 ? 4 : 0))) & 15u;
}

}  // namespace medvqa::cuda
