#include "medvqa/quant/nf4.h"

#include <array>
#include <vector>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/elements.h"

namespace medvqa::cpu {

namespace {

float block_absmax(const ops::Nf4Weight& w, std::int64_t block) {
  if (!w.nested()) return w.absmax.as<float>()[block];
  const float mapped = w.nested_map.as<float>()[w.absmax.as<std::uint8_t>()[block]];
  const float scale = w.nested_absmax.as<float>()[block / w.nested_block_size];
  return quant::nested_value(mapped, scale, w.nested_offset);
}

float rounded(float value, DType type) {
  if (type == DType::bf16) return static_cast<float>(BFloat16(value));
  if (type == DType::f16) return static_cast<float>(Float16(value));
  return value;
}

// The sixteen values a block can take, already rounded as the checkpoint says.
template <class T>
std::array<T, 16> block_values(const ops::Nf4Weight& w, std::int64_t block) {
  const float absmax = block_absmax(w, block);
  const float* code = w.code.as<float>();
  std::array<T, 16> values;
  for (std::size_t i = 0; i < 16; ++i) {
    values[i] = static_cast<T>(rounded(code[i] * absmax, w.rounded_to));
  }
  return values;
}

}  // namespace

void CpuBackend::do_dequantize_nf4(const ops::Nf4Weight& w, const Tensor& y_OI) {
  const std::int64_t n = w.out * w.in;
  const std::int64_t blocks = (n + w.block_size - 1) / w.block_size;
  const std::uint8_t* packed = w.packed.as<std::uint8_t>();
  dispatch_float(y_OI.dtype, [&]<class T>() {
    T* y = y_OI.as<T>();
    parallel_for(blocks, w.block_size, [&](std::int64_t block) {
      const std::array<T, 16> values = block_values<T>(w, block);
      const std::int64_t begin = block * w.block_size;
      const std::int64_t pairs = std::min(n - begin, w.block_size) / 2;
      for (std::int64_t i = 0; i < pairs; ++i) {
        const std::uint8_t byte = packed[begin / 2 + i];
        y[begin + 2 * i] = values[byte >> 4];
        y[begin + 2 * i + 1] = values[byte & 15];
      }
      if ((n - begin) < w.block_size && (n - begin) % 2 == 1) {
        y[n - 1] = values[packed[n / 2] >> 4];
      }
    });
  });
}

void CpuBackend::do_quantize_nf4(const Tensor& x, const Tensor& packed, const Tensor& absmax) {
  const std::int64_t n = x.elements();
  std::uint8_t* codes = packed.as<std::uint8_t>();
  float* maxima = absmax.as<float>();
  dispatch_float(x.dtype, [&]<class T>() {
    parallel_for(absmax.dim(0), 2048, [&](std::int64_t block) {
      std::array<float, quant::kNf4BlockSize> values;
      const std::int64_t begin = block * quant::kNf4BlockSize;
      const auto count = static_cast<std::size_t>(std::min(n - begin, quant::kNf4BlockSize));
      for (std::size_t i = 0; i < count; ++i) {
        values[i] = static_cast<float>(load(x.as<T>()[begin + static_cast<std::int64_t>(i)]));
      }
      quant::quantize_nf4(std::span(values.data(), count), quant::kNf4BlockSize,
                          std::span(codes + begin / 2, (count + 1) / 2),
                          std::span(maxima + block, 1));
    });
  });
}

}  // namespace medvqa::cpu
