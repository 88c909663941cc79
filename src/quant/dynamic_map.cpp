#include "medvqa/quant/dynamic_map.h"

#include <algorithm>
#include <cstddef>
#include <vector>

namespace medvqa::quant {
namespace {

// torch.linspace(0.1, 1, count): from both ends to the middle, one fused multiply-add each.
std::vector<float> linspace_from_tenth(int count) {
  const float first = 0.1f;
  const float last = 1.0f;
  const float step = (last - first) / static_cast<float>(count - 1);
  std::vector<float> points;
  for (int i = 0; i < count; ++i) {
    points.push_back(i < count / 2 ? std::fma(step, static_cast<float>(i), first)
                                   : std::fma(-step, static_cast<float>(count - 1 - i), last));
  }
  return points;
}

std::array<float, 256> make_map(bool is_signed) {
  std::vector<float> values = {0.0f, 1.0f};
  constexpr double kScales[7] = {1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0};
  for (int i = 0; i < 7; ++i) {
    const std::vector<float> points = linspace_from_tenth((1 << (is_signed ? i : i + 1)) + 1);
    for (std::size_t k = 0; k + 1 < points.size(); ++k) {
      const float mean = (points[k] + points[k + 1]) / 2.0f;
      const float value = mean * static_cast<float>(kScales[i]);
      values.push_back(value);
      if (is_signed) values.push_back(-value);
    }
  }
  std::sort(values.begin(), values.end());
  std::array<float, 256> map{};
  std::copy_n(values.begin(), map.size(), map.begin());
  return map;
}

GridCodes make_grid_codes(const std::array<float, 256>& map) {
  GridCodes codes{};
  std::size_t code = 0;
  for (int i = 0; i < kGridPoints; ++i) {
    const float value = -1.0f + 2.0f * static_cast<float>(i) / static_cast<float>(kGridPoints - 1);
    while (code < 255 && 0.5f * (map[code] + map[code + 1]) < value) ++code;
    codes[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(code);
  }
  return codes;
}

}  // namespace

const std::array<float, 256>& signed_dynamic_map() {
  static const std::array<float, 256> map = make_map(true);
  return map;
}

const std::array<float, 256>& unsigned_dynamic_map() {
  static const std::array<float, 256> map = make_map(false);
  return map;
}

const GridCodes& signed_grid_codes() {
  static const GridCodes codes = make_grid_codes(signed_dynamic_map());
  return codes;
}

const GridCodes& unsigned_grid_codes() {
  static const GridCodes codes = make_grid_codes(unsigned_dynamic_map());
  return codes;
}

}  // namespace medvqa::quant
