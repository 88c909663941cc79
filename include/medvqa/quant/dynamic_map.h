// The dynamic 8-bit data types of Dettmers et al. 2022 (8-bit Optimizers via Block-wise
// Quantization): signed in [-0.993, 1], unsigned in [0, 1], 256 ascending values each.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>

namespace medvqa::quant {

// For i = 0..6 with n = 2^i (unsigned 2^(i+1)): means of neighbours of linspace(0.1, 1, n + 1),
// times 10^(i - 6), both signs (unsigned: positive only), and 0 and 1. Bit for bit as PyTorch 2.11.
const std::array<float, 256>& signed_dynamic_map();
const std::array<float, 256>& unsigned_dynamic_map();

// The nearest entry of an ascending map of 256, as bitsandbytes' CUDA kernels search it: seven
// halvings from 127, then the nearer neighbour. x in [-1, 1] (unsigned maps: [0, 1]); NaN gives 0.
// Exact midpoints go to whichever side the loop arrives from.
constexpr std::uint8_t search_map(const float* map, float x, bool is_signed) {
  int pivot = 127;
  int upper_pivot = 255;
  int lower_pivot = 0;
  float lower = is_signed ? -1.0f : 0.0f;
  float upper = 1.0f;
  float value = map[pivot];
  for (int step = 64; step > 0; step >>= 1) {
    if (x > value) {
      lower_pivot = pivot;
      lower = value;
      pivot += step;
    } else {
      upper_pivot = pivot;
      upper = value;
      pivot -= step;
    }
    value = map[pivot];
  }
  if (upper_pivot == 255) upper = map[255];
  if (lower_pivot == 0) lower = map[0];
  if (x > value) {
    return static_cast<std::uint8_t>(x > (upper + value) * 0.5f ? upper_pivot : pivot);
  }
  return static_cast<std::uint8_t>(x < (lower + value) * 0.5f ? lower_pivot : pivot);
}

// bitsandbytes 0.50.2 on a CPU looks codes up in a table of 65,536 equidistant points of [-1, 1]:
// x is first moved to the nearest of them (3e-5 apart), then to the nearest entry, the lower one
// on a tie. So 0 in an unsigned map becomes code 7 (7.75e-6), and no code below that is used but
// for NaN, which becomes code 0: 0 times the infinite inverse of a block's maximum below 2.94e-39.
constexpr int kGridPoints = 65536;

constexpr int grid_index(float x) {
  const float clamped = x > -1.0f ? (x < 1.0f ? x : 1.0f) : -1.0f;
  const float position = (clamped + 1.0f) * 0.5f * static_cast<float>(kGridPoints - 1);
  return static_cast<int>(position + 0.5f);  // NOLINT(bugprone-incorrect-roundings): as there
}

using GridCodes = std::array<std::uint8_t, kGridPoints>;
// Tables for grid_index; 64 KiB each, built on first use.
const GridCodes& signed_grid_codes();
const GridCodes& unsigned_grid_codes();

}  // namespace medvqa::quant
