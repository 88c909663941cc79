#include "medvqa/nn/weights.h"

#include <algorithm>
#include <cstring>

namespace medvqa::nn {

namespace {
std::int64_t elements(const std::vector<std::int64_t>& shape) {
  std::int64_t n = 1;
  for (const std::int64_t d : shape) n *= d;
  return n;
}
std::int64_t ceil_div(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}
}  // namespace

void convert_elements(std::span<const std::byte> from, DType from_type, std::span<std::byte> to,
                      DType to_type) {
  MEDVQA_CHECK(from.size() / size_of(from_type) == to.size() / size_of(to_type),
               "convert_elements: sizes differ");
  if (from_type == to_type) {
    std::copy(from.begin(), from.end(), to.begin());
    return;
  }
  dispatch_float(from_type, [&]<class S>() {
    dispatch_float(to_type, [&]<class D>() {
      const std::size_t n = from.size() / sizeof(S);
      for (std::size_t i = 0; i < n; ++i) {
        S s;
        std::memcpy(&s, from.data() + i * sizeof(S), sizeof(S));
        const D d = static_cast<D>(static_cast<Accumulator<D>>(s));
        std::memcpy(to.data() + i * sizeof(D), &d, sizeof(D));
      }
    });
  });
}

void DescribedWeights::note(const TensorRequest& request) const {
  const bool known = std::any_of(requests_.begin(), requests_.end(),
                                 [&](const TensorRequest& r) { return r.name == request.name; });
  if (!known) requests_.push_back(request);
}

// Optional tensors do not exist here: what a family's config declares is what is asked for.
bool DescribedWeights::contains(const std::string&) const {
  return true;
}

HostTensor DescribedWeights::dense(const TensorRequest& request) const {
  note(request);
  return {options_.dtype, request.shape, {}};
}

std::optional<HostNf4> DescribedWeights::nf4(const TensorRequest& request) const {
  if (!options_.nf4 || !request.quantizable) return std::nullopt;
  if (options_.stays_dense && options_.stays_dense(request.name)) return std::nullopt;
  note(request);
  HostNf4 w;
  const std::int64_t n = elements(request.shape);
  w.out = request.shape.at(0);
  w.in = request.shape.at(1);
  w.dtype = options_.dtype;
  w.nested = options_.nested;
  const std::int64_t blocks = ceil_div(n, w.block_size);
  w.packed = {DType::u8, {ceil_div(n, 2), 1}, {}};
  w.absmax = {w.nested ? DType::u8 : DType::f32, {blocks}, {}};
  w.code = {DType::f32, {16}, {}};
  if (w.nested) {
    w.nested_absmax = {DType::f32, {ceil_div(blocks, w.nested_block_size)}, {}};
    w.nested_map = {DType::f32, {256}, {}};
  }
  return w;
}

}  // namespace medvqa::nn
