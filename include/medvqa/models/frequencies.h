// Angles a token's rotary pairs turn by from one position to the next. Su et al. 2021.
#pragma once

#include <cstdint>
#include <vector>

namespace medvqa::models {

// inv_freq[i] = theta^(-2i / dim), i < dim / 2, each step rounded to f32 as in the reference.
std::vector<float> inverse_frequencies(double theta, std::int64_t dim);

// Llama 3.1's longer context ("rope_type": "llama3"): with the wavelength w = 2 pi / f,
//   w < original / high: f;   w > original / low: f / factor;
//   between: (1 - s) f / factor + s f,  s = (original / w - low) / (high - low).
struct Llama3Scaling {
  double factor = 8;
  double low = 1;
  double high = 4;
  double original_positions = 8192;
};
// In the order of operations of transformers 5.17, each rounded to f32.
std::vector<float> llama3_frequencies(std::vector<float> inv_freq, const Llama3Scaling& scaling);

}  // namespace medvqa::models
