// Values that are the same in every run, addressed by a name.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "medvqa/core/philox.h"

namespace medvqa::testing {

inline std::vector<double> random_values(std::string_view name, std::int64_t n, double low = -1,
                                         double high = 1) {
  std::uint64_t key = 1469598103934665603u;  // FNV-1a
  for (const char c : name) key = (key ^ static_cast<unsigned char>(c)) * 1099511628211u;
  std::vector<double> values(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double unit = static_cast<double>(philox4x32(key, 0, i)[0]) * 0x1p-32;
    values[i] = low + (high - low) * unit;
  }
  return values;
}

}  // namespace medvqa::testing
