// How much temporary memory an operation takes: a pure function of its operands' shapes and the
// device, shared by kernels and the dry run, so that a plan is exact to the byte.
#pragma once

#include <cstddef>
#include <span>

#include "medvqa/ops/backend.h"

namespace medvqa::ops {

// f16 products on a device without them: f32 copies of a, b and c.
std::size_t scratch_bytes(const Gemm& p, const DeviceTraits& traits);
std::size_t scratch_bytes(std::span<const Gemm> group, const DeviceTraits& traits);
// The dequantised weight and what its product takes; nothing where the two are one kernel.
std::size_t scratch_bytes(const Nf4Product& p, const DeviceTraits& traits);
// Whether they are: few rows of a 16-bit type whose kernel takes 128 columns at a time.
bool fused(const Nf4Product& p, const DeviceTraits& traits);
// Per thread: tiles of scores, and a head's keys and values in the type products read. Where scores
// stay on the chip: nothing, and the backward's delta, as large as lse.
std::size_t scratch_bytes(const Attention& p, const DeviceTraits& traits);
std::size_t scratch_bytes(const AttentionBackward& p, const DeviceTraits& traits);
// A chunk of logits in the accumulator type, and its gradient in the type of x.
std::size_t scratch_bytes(const LinearCrossEntropy& p, const DeviceTraits& traits);

// The CPU's attention, fixed here because scratch depends on it: query rows a tile, keys a
// block, and the multiple rows and keys of a product are filled up to, so that lengths
// share the products made for them.
inline constexpr std::int64_t kAttentionQueryTile = 128;
inline constexpr std::int64_t kAttentionKeyBlock = 512;
inline constexpr std::int64_t kAttentionPadding = 16;
constexpr std::int64_t padded(std::int64_t n) {
  return (n + kAttentionPadding - 1) / kAttentionPadding * kAttentionPadding;
}

}  // namespace medvqa::ops
