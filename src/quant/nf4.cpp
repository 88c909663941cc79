#include "medvqa/quant/nf4.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>

#include "medvqa/core/error.h"
#include "medvqa/quant/dynamic_map.h"

namespace medvqa::quant {
namespace {

constexpr std::size_t kLanes = 8;
constexpr std::size_t kRows = 4;
constexpr std::size_t kLevels = 4;

std::size_t blocks_of(std::size_t n, std::int64_t block_size) {
  return (n + static_cast<std::size_t>(block_size) - 1) / static_cast<std::size_t>(block_size);
}

// Four running maxima, because one alone waits for itself at every element.
float max_magnitude(std::span<const float> values) {
  std::array<float, 4> lanes{};
  std::size_t i = 0;
  for (; i + 4 <= values.size(); i += 4) {
    for (std::size_t k = 0; k < 4; ++k) lanes[k] = std::max(lanes[k], std::fabs(values[i + k]));
  }
  for (; i < values.size(); ++i) lanes[0] = std::max(lanes[0], std::fabs(values[i]));
  return *std::max_element(lanes.begin(), lanes.end());
}

// nf4_code by halving: four comparisons instead of fifteen.
std::uint8_t find_code(float normalised) {
  std::size_t code = normalised > kNf4Thresholds[7] ? 8 : 0;
  code += normalised > kNf4Thresholds[code + 3] ? 4 : 0;
  code += normalised > kNf4Thresholds[code + 1] ? 2 : 0;
  code += normalised > kNf4Thresholds[code] ? 1 : 0;
  return static_cast<std::uint8_t>(code);
}

using Vector = std::array<float, kLanes>;

void add_to(Vector& sum, const Vector& term) {
  for (std::size_t lane = 0; lane < kLanes; ++lane) sum[lane] += term[lane];
}

Vector load(std::span<const float> values, std::size_t vector) {
  Vector v;
  std::copy_n(values.begin() + static_cast<std::ptrdiff_t>(vector * kLanes), kLanes, v.begin());
  return v;
}

std::size_t ceil_log2(std::size_t n) {
  return n <= 2 ? 1 : static_cast<std::size_t>(std::bit_width(n - 1));
}

// Rows k, k + 4, k + 8, ... of the first `size` groups of four vectors: partial sums move up a
// level every 2^power groups, so that rounding errors grow with the logarithm of the length.
std::array<Vector, kRows> cascade(std::span<const float> values, std::size_t size) {
  std::array<std::array<Vector, kRows>, kLevels> sums{};
  const std::size_t power = std::max<std::size_t>(4, ceil_log2(size) / kLevels);
  const std::size_t step = std::size_t{1} << power;
  std::size_t i = 0;
  const auto take = [&] {
    for (std::size_t k = 0; k < kRows; ++k) add_to(sums[0][k], load(values, i * kRows + k));
    ++i;
  };
  while (i + step <= size) {
    for (std::size_t j = 0; j < step; ++j) take();
    for (std::size_t level = 1; level < kLevels; ++level) {
      for (std::size_t k = 0; k < kRows; ++k) {
        add_to(sums[level][k], sums[level - 1][k]);
        sums[level - 1][k] = Vector{};
      }
      if ((i & ((step - 1) << (level * power))) != 0) break;
    }
  }
  while (i < size) take();
  for (std::size_t level = 1; level < kLevels; ++level) {
    for (std::size_t k = 0; k < kRows; ++k) add_to(sums[0][k], sums[level][k]);
  }
  return sums[0];
}

template <class T>
void round_through(std::span<float> values) {
  for (float& x : values) x = static_cast<float>(T(x));
}

}  // namespace

float torch_mean(std::span<const float> values) {
  const std::size_t vectors = values.size() / kLanes;
  const std::size_t groups = vectors / kRows;
  std::array<Vector, kRows> rows = cascade(values, groups);
  for (std::size_t i = groups * kRows; i < vectors; ++i) add_to(rows[0], load(values, i));
  for (std::size_t k = 1; k < kRows; ++k) add_to(rows[0], rows[k]);
  float sum = 0;
  for (std::size_t i = vectors * kLanes; i < values.size(); ++i) sum += values[i];
  for (const float lane : rows[0]) sum += lane;
  return sum / static_cast<float>(values.size());
}

void quantize_nf4(std::span<const float> values, std::int64_t block_size,
                  std::span<std::uint8_t> packed, std::span<float> absmax) {
  MEDVQA_CHECK(block_size > 0 && block_size % 2 == 0, "block size must be positive and even");
  MEDVQA_CHECK(packed.size() == (values.size() + 1) / 2, "packed has the wrong size");
  MEDVQA_CHECK(absmax.size() == blocks_of(values.size(), block_size), "absmax: wrong size");
  const auto size = static_cast<std::size_t>(block_size);
  for (std::size_t b = 0; b < absmax.size(); ++b) {
    const std::size_t begin = b * size;
    const auto block = values.subspan(begin, std::min(size, values.size() - begin));
    absmax[b] = max_magnitude(block);
    // As bitsandbytes 0.50.2 on a CPU: an all-zero block has the code of zero.
    const float inverse = absmax[b] == 0.0f ? 0.0f : 1.0f / absmax[b];
    for (std::size_t i = 0; i < block.size(); i += 2) {
      const std::uint8_t first = find_code(block[i] * inverse);
      // The nibble after an odd end is the code of zero, as in bitsandbytes.
      const float second = i + 1 < block.size() ? block[i + 1] * inverse : 0.0f;
      packed[(begin + i) / 2] = nf4_pack(first, find_code(second));
    }
  }
}

Nf4Data quantize_nf4(std::span<const float> values, std::int64_t block_size) {
  MEDVQA_CHECK(block_size > 0, "block size must be positive");
  Nf4Data data;
  data.packed.resize((values.size() + 1) / 2);
  data.absmax.resize(blocks_of(values.size(), block_size));
  quantize_nf4(values, block_size, data.packed, data.absmax);
  return data;
}

NestedAbsmax quantize_absmax(std::span<const float> absmax) {
  MEDVQA_CHECK(!absmax.empty(), "no blocks to quantise");
  NestedAbsmax nested;
  nested.offset = torch_mean(absmax);
  nested.codes.resize(absmax.size());
  std::vector<float> centred(absmax.begin(), absmax.end());
  for (float& x : centred) x -= nested.offset;
  const GridCodes& codes = signed_grid_codes();
  constexpr auto kSize = static_cast<std::size_t>(kNestedBlockSize);
  for (std::size_t begin = 0; begin < centred.size(); begin += kSize) {
    const std::size_t count = std::min(kSize, centred.size() - begin);
    const float largest = max_magnitude(std::span(centred).subspan(begin, count));
    nested.absmax.push_back(largest);
    const float inverse = 1.0f / largest;
    for (std::size_t i = begin; i < begin + count; ++i) {
      const auto point =
          largest == 0 ? 0 : static_cast<std::size_t>(grid_index(centred[i] * inverse));
      nested.codes[i] = largest == 0 ? std::uint8_t{0} : codes[point];
    }
  }
  return nested;
}

std::vector<float> dequantize_absmax(std::span<const std::uint8_t> codes,
                                     std::span<const float> nested_absmax,
                                     std::span<const float> nested_map, float offset,
                                     std::int64_t nested_block_size) {
  MEDVQA_CHECK(nested_map.size() == 256, "a nested map has 256 values");
  MEDVQA_CHECK(nested_absmax.size() == blocks_of(codes.size(), nested_block_size),
               "nested_absmax: wrong size");
  std::vector<float> absmax(codes.size());
  for (std::size_t i = 0; i < codes.size(); ++i) {
    const float scale = nested_absmax[i / static_cast<std::size_t>(nested_block_size)];
    absmax[i] = nested_value(nested_map[codes[i]], scale, offset);
  }
  return absmax;
}

void dequantize_nf4(std::span<const std::uint8_t> packed, std::span<const float> absmax,
                    std::span<const float> code, std::int64_t block_size, DType dtype,
                    std::span<float> values) {
  MEDVQA_CHECK(code.size() == 16, "an NF4 code book has 16 values");
  MEDVQA_CHECK(packed.size() == (values.size() + 1) / 2, "packed has the wrong size");
  MEDVQA_CHECK(absmax.size() == blocks_of(values.size(), block_size), "absmax: wrong size");
  for (std::size_t i = 0; i < values.size(); ++i) {
    const unsigned byte = packed[i / 2];
    const unsigned nibble = i % 2 == 0 ? byte >> 4 : byte & 15u;
    values[i] = code[nibble] * absmax[i / static_cast<std::size_t>(block_size)];
  }
  if (dtype == DType::bf16) round_through<BFloat16>(values);
  if (dtype == DType::f16) round_through<Float16>(values);
}

}  // namespace medvqa::quant
