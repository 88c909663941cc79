// NF4: 4-bit NormalFloat in blocks, and the 8-bit compression of its block maxima ("nested").
// Dettmers et al. 2023, QLoRA; byte for byte as bitsandbytes stores it.
//
// Block b of `block_size` consecutive elements (row-major; the last may be short):
//   absmax_b = max |x|,  normalised = x * (1 / absmax_b) in f32,
//   code     = number of thresholds strictly below `normalised`,
//   value    = kNf4Code[code] * absmax_b in f32, rounded to the type of the weight.
// Two codes a byte, the first element in the high nibble.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "medvqa/core/dtype.h"

namespace medvqa::quant {

inline constexpr std::int64_t kNf4BlockSize = 64;
inline constexpr std::int64_t kNestedBlockSize = 256;

inline constexpr float kNf4Code[16] = {-1.0f,
                                       -0.6961928009986877f,
                                       -0.5250730514526367f,
                                       -0.39491748809814453f,
                                       -0.28444138169288635f,
                                       -0.18477343022823334f,
                                       -0.09105003625154495f,
                                       0.0f,
                                       0.07958029955625534f,
                                       0.16093020141124725f,
                                       0.24611230194568634f,
                                       0.33791524171829224f,
                                       0.44070982933044434f,
                                       0.5626170039176941f,
                                       0.7229568362236023f,
                                       1.0f};

// Midpoints of neighbouring codes, rounded to f32. In hexadecimal because four of them lie halfway
// between two f32: read from decimals, as bitsandbytes' CUDA source has them, they come out an ulp
// away from what its CPU code computes.
inline constexpr float kNf4Thresholds[15] = {
    -0x1.b239bp-1f,  -0x1.38a4ep-1f,  -0x1.d709p-2f,  -0x1.5bd4ecp-2f, -0x1.e079d8p-3f,
    -0x1.1a7178p-3f, -0x1.74f0e2p-5f, 0x1.45f5fep-5f, 0x1.ec90c4p-4f,  0x1.a0cfcp-3f,
    0x1.2b05a8p-2f,  0x1.8ea7f2p-2f,  0x1.00da08p-1f, 0x1.491b5ep-1f,  0x1.b913b4p-1f};

// The code of x / absmax; an all-zero block passes 0 and has code 7, the zero. A kernel may call
// it: the thresholds become immediates.
constexpr std::uint8_t nf4_code(float normalised) {
  int code = 0;
  for (int i = 0; i < 15; ++i) code += normalised > kNf4Thresholds[i] ? 1 : 0;
  return static_cast<std::uint8_t>(code);
}

constexpr std::uint8_t nf4_pack(std::uint8_t first, std::uint8_t second) {
  return static_cast<std::uint8_t>(first << 4 | second);
}

// map[code] * nested_absmax + offset, rounded after each operation (never fused).
constexpr float nested_value(float mapped, float nested_absmax, float offset) {
  const float product = mapped * nested_absmax;
  return product + offset;
}

struct Nf4Data {
  std::vector<std::uint8_t> packed;  // [ceil(n / 2)]
  std::vector<float> absmax;         // [ceil(n / block_size)]
};

Nf4Data quantize_nf4(std::span<const float> values, std::int64_t block_size = kNf4BlockSize);
// The same into memory of the caller: packed [ceil(n / 2)], absmax [ceil(n / block_size)].
// `block_size` must be even.
void quantize_nf4(std::span<const float> values, std::int64_t block_size,
                  std::span<std::uint8_t> packed, std::span<float> absmax);

// absmax - offset in blocks of 256 with the signed dynamic map, offset = mean(absmax).
struct NestedAbsmax {
  std::vector<std::uint8_t> codes;  // [blocks]
  std::vector<float> absmax;        // [ceil(blocks / 256)]
  float offset = 0;
};

// As bitsandbytes 0.50.2 does it on a CPU: codes rounded on its grid (dynamic_map.h), mean summed
// in the order of PyTorch 2.11 on x86-64. (Its other machines sum in another order: an ulp.)
NestedAbsmax quantize_absmax(std::span<const float> absmax);

// PyTorch's f32 mean of contiguous values: cascade sum, 8 lanes, 4 rows at a time.
float torch_mean(std::span<const float> values);

std::vector<float> dequantize_absmax(std::span<const std::uint8_t> codes,
                                     std::span<const float> nested_absmax,
                                     std::span<const float> nested_map, float offset,
                                     std::int64_t nested_block_size = kNestedBlockSize);

// values.size() elements of code[nibble] * absmax[block] in f32, each rounded through `dtype`
// (f32, bf16 or f16). code [16].
void dequantize_nf4(std::span<const std::uint8_t> packed, std::span<const float> absmax,
                    std::span<const float> code, std::int64_t block_size, DType dtype,
                    std::span<float> values);

}  // namespace medvqa::quant
