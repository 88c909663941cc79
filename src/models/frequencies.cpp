#include "medvqa/models/frequencies.h"

#include <cmath>
#include <numbers>

namespace medvqa::models {

std::vector<float> inverse_frequencies(double theta, std::int64_t dim) {
  std::vector<float> f(static_cast<std::size_t>(dim / 2));
  for (std::size_t i = 0; i < f.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(dim);
    const auto power = static_cast<float>(std::pow(theta, static_cast<double>(exponent)));
    f[i] = 1.0f / power;
  }
  return f;
}

std::vector<float> llama3_frequencies(std::vector<float> inv_freq, const Llama3Scaling& scaling) {
  const auto factor = static_cast<float>(scaling.factor);
  const auto low = static_cast<float>(scaling.low);
  const auto original = static_cast<float>(scaling.original_positions);
  const auto range = static_cast<float>(scaling.high - scaling.low);
  const auto longest = static_cast<float>(scaling.original_positions / scaling.low);
  const auto shortest = static_cast<float>(scaling.original_positions / scaling.high);
  for (float& f : inv_freq) {
    // Division of a number by a tensor is a reciprocal and a product there.
    const float wavelength = (1.0f / f) * static_cast<float>(2 * std::numbers::pi);
    if (wavelength < shortest) continue;
    if (wavelength > longest) {
      f = f / factor;
      continue;
    }
    const float smooth = ((1.0f / wavelength) * original - low) / range;
    const float slow = (1.0f - smooth) * f / factor;
    f = slow + smooth * f;
  }
  return inv_freq;
}

}  // namespace medvqa::models
