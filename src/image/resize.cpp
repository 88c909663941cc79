// Shapes: an image is rows of width * 3 bytes. Both passes run over contiguous bytes in their
// inner loop, so that the compiler turns it into vector instructions.
#include "medvqa/image/resize.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "medvqa/core/error.h"

namespace medvqa {
namespace {

constexpr int kFractionBits = 22;
constexpr std::int32_t kHalf = 1 << (kFractionBits - 1);

double bilinear(double x) {
  x = std::abs(x);
  return x < 1.0 ? 1.0 - x : 0.0;
}

double bicubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
  if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
  return 0.0;
}

double sinc(double x) {
  if (x == 0.0) return 1.0;
  x *= std::numbers::pi;
  return std::sin(x) / x;
}

double lanczos(double x) {
  return -3.0 <= x && x < 3.0 ? sinc(x) * sinc(x / 3) : 0.0;
}

struct Kernel {
  double (*weight)(double);
  double support;
};

Kernel kernel_of(ResampleFilter filter) {
  switch (filter) {
    case ResampleFilter::bilinear:
      return {bilinear, 1.0};
    case ResampleFilter::bicubic:
      return {bicubic, 2.0};
    case ResampleFilter::lanczos:
      return {lanczos, 3.0};
  }
  MEDVQA_CHECK(false, "unknown resampling filter");
  return {};
}

// What one axis sums: output i takes weights[offset[i] ...] times the inputs from first[i] on.
struct Taps {
  std::vector<int> first;
  std::vector<std::size_t> offset;  // one more than outputs
  std::vector<std::int32_t> weights;
};

Taps make_taps(int inputs, int outputs, const Kernel& kernel) {
  const double scale = static_cast<double>(inputs) / outputs;
  const double stretch = std::max(scale, 1.0);
  const double support = kernel.support * stretch;
  const double inverse = 1.0 / stretch;
  Taps taps;
  taps.offset.push_back(0);
  std::vector<double> weights;
  for (int i = 0; i < outputs; ++i) {
    const double center = (i + 0.5) * scale;
    const int first = std::max(static_cast<int>(center - support + 0.5), 0);
    const int count = std::min(static_cast<int>(center + support + 0.5), inputs) - first;
    weights.assign(static_cast<std::size_t>(std::max(count, 0)), 0.0);
    double total = 0.0;
    for (int k = 0; k < count; ++k) {
      const double w = kernel.weight((k + first - center + 0.5) * inverse);
      weights[static_cast<std::size_t>(k)] = w;
      total += w;
    }
    for (double w : weights) {
      if (total != 0.0) w /= total;
      const double fixed = w * (1 << kFractionBits);
      taps.weights.push_back(static_cast<std::int32_t>(w < 0 ? fixed - 0.5 : fixed + 0.5));
    }
    taps.first.push_back(first);
    taps.offset.push_back(taps.weights.size());
  }
  return taps;
}

inline std::uint8_t to_byte(std::int32_t sum) {
  return static_cast<std::uint8_t>(std::clamp(sum >> kFractionBits, 0, 255));
}

// One output of a pass for `count` neighbours at a time: inputs lie `stride` bytes apart.
inline void sum_taps(const std::uint8_t* input, std::size_t stride, const std::int32_t* weights,
                     std::size_t taps, std::int32_t* sums, std::size_t count) {
  std::fill(sums, sums + count, kHalf);
  for (std::size_t k = 0; k < taps; ++k) {
    const std::int32_t w = weights[k];
    const std::uint8_t* in = input + k * stride;
    for (std::size_t j = 0; j < count; ++j) sums[j] += w * in[j];
  }
}

Image vertical_pass(const Image& image, int height, const Kernel& kernel) {
  const Taps taps = make_taps(image.height, height, kernel);
  Image result{image.width, height, {}};
  const std::size_t stride = static_cast<std::size_t>(image.width) * 3;
  result.rgb.resize(stride * static_cast<std::size_t>(height));
  std::array<std::int32_t, 1024> sums;
  for (std::size_t y = 0; y < static_cast<std::size_t>(height); ++y) {
    const std::uint8_t* in = image.rgb.data() + static_cast<std::size_t>(taps.first[y]) * stride;
    std::uint8_t* out = result.rgb.data() + y * stride;
    for (std::size_t x = 0; x < stride; x += sums.size()) {
      const std::size_t count = std::min(sums.size(), stride - x);
      sum_taps(in + x, stride, taps.weights.data() + taps.offset[y],
               taps.offset[y + 1] - taps.offset[y], sums.data(), count);
      for (std::size_t j = 0; j < count; ++j) out[x + j] = to_byte(sums[j]);
    }
  }
  return result;
}

constexpr std::size_t kBlockRows = 16;
constexpr std::size_t kBlockPixel = 3 * kBlockRows;

// Rows y .. y+rows of the image as [x][channel][row], so that a horizontal sum runs over rows.
void gather_block(const Image& image, std::size_t y, std::size_t rows,
                  std::vector<std::uint8_t>& block) {
  const std::size_t stride = static_cast<std::size_t>(image.width) * 3;
  for (std::size_t r = 0; r < rows; ++r) {
    const std::uint8_t* in = image.rgb.data() + (y + r) * stride;
    for (std::size_t i = 0; i < stride; ++i) block[i * kBlockRows + r] = in[i];
  }
}

Image horizontal_pass(const Image& image, int width, const Kernel& kernel) {
  const Taps taps = make_taps(image.width, width, kernel);
  Image result{width, image.height, {}};
  const std::size_t out_stride = static_cast<std::size_t>(width) * 3;
  const auto height = static_cast<std::size_t>(image.height);
  result.rgb.resize(out_stride * height);
  std::vector<std::uint8_t> block(static_cast<std::size_t>(image.width) * kBlockPixel);
  std::array<std::int32_t, kBlockPixel> sums;
  for (std::size_t y = 0; y < height; y += kBlockRows) {
    const std::size_t rows = std::min(kBlockRows, height - y);
    gather_block(image, y, rows, block);
    for (std::size_t x = 0; x < static_cast<std::size_t>(width); ++x) {
      sum_taps(block.data() + static_cast<std::size_t>(taps.first[x]) * kBlockPixel, kBlockPixel,
               taps.weights.data() + taps.offset[x], taps.offset[x + 1] - taps.offset[x],
               sums.data(), kBlockPixel);
      for (std::size_t r = 0; r < rows; ++r) {
        std::uint8_t* out = result.rgb.data() + (y + r) * out_stride + x * 3;
        for (std::size_t c = 0; c < 3; ++c) out[c] = to_byte(sums[c * kBlockRows + r]);
      }
    }
  }
  return result;
}

}  // namespace

Image resize(const Image& image, int width, int height, ResampleFilter filter) {
  MEDVQA_CHECK(width > 0 && height > 0, "a picture is resized to at least one pixel");
  MEDVQA_CHECK(image.width > 0 && image.height > 0, "the picture to resize is empty");
  const Kernel kernel = kernel_of(filter);
  const std::int64_t less_height = std::int64_t{image.height} - height;
  const std::int64_t less_width = std::int64_t{image.width} - width;
  const bool vertical_first = less_height > 0 && less_height > 2 * less_width;
  if (image.width == width && image.height == height) return image;
  if (image.width == width) return vertical_pass(image, height, kernel);
  if (image.height == height) return horizontal_pass(image, width, kernel);
  if (vertical_first) {
    return horizontal_pass(vertical_pass(image, height, kernel), width, kernel);
  }
  return vertical_pass(horizontal_pass(image, width, kernel), height, kernel);
}

}  // namespace medvqa
