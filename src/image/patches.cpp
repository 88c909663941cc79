#include "medvqa/image/patches.h"

namespace medvqa {

ValueTable pixel_values(const PixelScale& scale) {
  ValueTable table;
  for (std::size_t c = 0; c < 3; ++c) {
    for (std::size_t v = 0; v < 256; ++v) {
      const auto rescaled = static_cast<float>(static_cast<double>(v) * scale.rescale_factor);
      const float centered = rescaled - scale.mean[c];
      table[c][v] = centered / scale.std[c];
    }
  }
  return table;
}

}  // namespace medvqa
