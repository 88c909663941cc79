#include "tests/support/memory_weights.h"

#include <cstring>
#include <span>

#include "medvqa/quant/dynamic_map.h"
#include "tests/support/op_case.h"
#include "tests/support/random_values.h"

namespace medvqa::testing {

namespace {

std::int64_t elements(const std::vector<std::int64_t>& shape) {
  return Shape(std::span<const std::int64_t>(shape)).elements();
}

template <class T>
std::span<const std::byte> view(const T& values) {
  return std::as_bytes(std::span(values));
}

}  // namespace

// Convolutions have five dimensions, one more than a Shape.
std::vector<double> MemoryWeights::values(const nn::TensorRequest& request) const {
  std::int64_t n = 1;
  for (const std::int64_t d : request.shape) n *= d;
  std::vector<double> v = random_values(request.name, n, -options_.scale, options_.scale);
  for (double& x : v) {
    if (request.role == nn::TensorRole::norm) x += 1;
    if (options_.factor) x *= options_.factor(request.name);
    x = rounded(x, options_.dtype);
  }
  return v;
}

nn::HostTensor MemoryWeights::dense(const nn::TensorRequest& request) const {
  std::vector<std::byte>& bytes = dense_[request.name];
  if (bytes.empty()) {
    const std::vector<double> v = values(request);
    dispatch_float(options_.dtype, [&]<class T>() {
      bytes.resize(v.size() * sizeof(T));
      for (std::size_t i = 0; i < v.size(); ++i) {
        const T x = static_cast<T>(static_cast<Accumulator<T>>(v[i]));
        std::memcpy(bytes.data() + i * sizeof(T), &x, sizeof(T));
      }
    });
  }
  return {options_.dtype, request.shape, bytes};
}

std::optional<nn::HostNf4> MemoryWeights::nf4(const nn::TensorRequest& request) const {
  if (!options_.nf4 || !request.quantizable) return std::nullopt;
  Quantized& q = quantized_[request.name];
  if (q.data.packed.empty()) {
    std::vector<float> v;
    for (const double x : values(request)) v.push_back(static_cast<float>(x));
    q.data = quant::quantize_nf4(v);
    q.nested = quant::quantize_absmax(q.data.absmax);
  }
  nn::HostNf4 w;
  w.out = request.shape.at(0);
  w.in = request.shape.at(1);
  w.dtype = DType::bf16;
  w.nested = options_.nested;
  const auto blocks = static_cast<std::int64_t>(q.data.absmax.size());
  w.packed = {DType::u8, {(elements(request.shape) + 1) / 2, 1}, view(q.data.packed)};
  w.code = {DType::f32, {16}, view(quant::kNf4Code)};
  w.absmax = {DType::f32, {blocks}, view(q.data.absmax)};
  if (w.nested) {
    w.absmax = {DType::u8, {blocks}, view(q.nested.codes)};
    w.nested_absmax = {
        DType::f32, {static_cast<std::int64_t>(q.nested.absmax.size())}, view(q.nested.absmax)};
    w.nested_map = {DType::f32, {256}, view(quant::signed_dynamic_map())};
    w.nested_offset = q.nested.offset;
  }
  return w;
}

}  // namespace medvqa::testing
