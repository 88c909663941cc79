// Random numbers of one stream of one seed, in order.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "medvqa/core/philox.h"

namespace medvqa::data {

class Draws {
 public:
  Draws(std::uint64_t seed, std::uint64_t stream) : seed_(seed), stream_(stream) {}

  std::uint32_t word() {
    if (used_ == 4) {
      words_ = philox4x32(seed_, stream_, counter_++);
      used_ = 0;
    }
    return words_[used_++];
  }
  double between(double low, double high) {
    return low + (high - low) * (static_cast<double>(word()) * 0x1p-32);
  }
  // From 0 to n - 1; n far below 2^32, so that the bias does not matter.
  std::size_t below(std::size_t n) {
    return static_cast<std::size_t>(std::uint64_t{word()} * std::uint64_t{n} >> 32);
  }
  template <class T>
  void shuffle(std::vector<T>& values) {
    for (std::size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[below(i)]);
  }

 private:
  std::uint64_t seed_, stream_;
  std::uint64_t counter_ = 0;
  std::array<std::uint32_t, 4> words_{};
  std::size_t used_ = 4;
};

}  // namespace medvqa::data
