// How much temporary memory an operation takes: a pure function of its operands' shapes and the
// device, shared by kernels and the dry run, so that a plan is exact to the byte.
#pragma once

#include <cstddef>
#include <span>

#include "medvqa/ops/backend.h"

namespace medvqa::ops {

// Whether the device multiplies bf16: one whose fastest type is f16 (sm_75) does not, and its bf16
// kernels trap.
bool has_bf16(const DeviceTraits& traits);

// f16 products on a device without them: f32 copies of a, b and c.
std::size_t scratch_bytes(const Gemm& p, const DeviceTraits& traits);
// The dequantised weight and what its product takes; nothing where the two are one kernel.
std::size_t scratch_bytes(const Nf4Product& p, const DeviceTraits& traits);
// Whether they are: few rows of a 16-bit type the device multiplies, 128 columns at a time.
bool fused(const Nf4Product& p, const DeviceTraits& traits);
// Per thread: tiles of scores, and a head's keys and values in the type products read. Where scores
// stay on the chip: what a library's attention may use, and the backward's delta, as large as lse.
std::size_t scratch_bytes(const Attention& p, const DeviceTraits& traits);
std::size_t scratch_bytes(const AttentionBackward& p, const DeviceTraits& traits);
// A chunk of logits in the accumulator type, and its gradient in the type of x.
std::size_t scratch_bytes(const LinearCrossEntropy& p, const DeviceTraits& traits);

// What the CUDA kernels are, on a device and in a plan for one that is not there; the device's name
// and type, and its products, are the caller's.
void add_cuda_kernels(DeviceTraits& traits);
// NVIDIA's advice for cuBLASLt on sm_90; smaller devices need less.
inline constexpr std::size_t kCublasWorkspace = std::size_t{32} << 20;

// A device library's attention (cuDNN), and what it takes of the scratch memory: offsets and
// lengths of samples, lse with every sample filled up to `length` rows, a workspace. Number of
// samples and length are rounded up to powers of two, so that batches share what the library
// compiles for them. bytes == 0: not for the library. It takes self-attention in 16 bits, heads of
// at most 128.
struct LibraryAttentionScratch {
  std::int64_t samples = 0, length = 0;
  std::size_t lse_at = 0, workspace_at = 0, bytes = 0;
};
LibraryAttentionScratch library_attention_scratch(const Attention& p);
// cuDNN 9.19 asks for 17152 bytes on sm_90 and none on sm_80; where it wants more it is not used.
inline constexpr std::size_t kLibraryAttentionWorkspace = std::size_t{1} << 20;

// The CPU's attention through oneDNN, fixed here because scratch depends on it: query rows a tile,
// keys a block, and the multiple rows and keys of a product are filled up to, so that lengths share
// the products made for them.
inline constexpr std::int64_t kAttentionQueryTile = 128;
inline constexpr std::int64_t kAttentionKeyBlock = 512;
inline constexpr std::int64_t kAttentionPadding = 16;
constexpr std::int64_t padded(std::int64_t n) {
  return (n + kAttentionPadding - 1) / kAttentionPadding * kAttentionPadding;
}

// Whether the CPU's attention goes by its own products of bf16 pairs (kernels/cpu/pair_product.h).
bool attention_in_pairs(const Attention& p, const DeviceTraits& traits);
// Its query rows a tile, a multiple of 5 and 6, which its kernels take at once; keys a block; and
// how many rows and keys have f32 scores at a time in the backward.
inline constexpr std::int64_t kPairQueryTile = 120;
inline constexpr std::int64_t kPairKeyBlock = 480;
inline constexpr std::int64_t kPairStripRows = 20;
inline constexpr std::int64_t kPairStripKeys = 80;

}  // namespace medvqa::ops
