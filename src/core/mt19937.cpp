#include "medvqa/core/mt19937.h"

#include <numeric>
#include <utility>

namespace medvqa {

std::vector<std::int64_t> TorchGenerator::permutation(std::int64_t n) {
  std::vector<std::int64_t> r(static_cast<std::size_t>(n));
  std::iota(r.begin(), r.end(), 0);
  for (std::size_t i = 0; i + 1 < r.size(); ++i) {
    std::swap(r[i], r[i + next() % (r.size() - i)]);
  }
  return r;
}

void TorchGenerator::uniform(std::span<float> values, float from, float to) {
  for (float& v : values) {
    const float u = static_cast<float>(next() & 0xFFFFFFu) * 0x1p-24f;
    v = u * (to - from) + from;
  }
}

}  // namespace medvqa
