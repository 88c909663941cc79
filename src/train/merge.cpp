#include "medvqa/train/merge.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "medvqa/ops/dry_backend.h"
#include "medvqa/train/adapter_files.h"
#include "medvqa/train/model_tensors.h"

namespace medvqa::train {

namespace {

constexpr std::string_view kWeight = ".weight";

std::string module_of(const std::string& tensor) {
  return tensor.ends_with(kWeight) ? tensor.substr(0, tensor.size() - kWeight.size()) : "";
}

std::int64_t elements(const std::vector<std::int64_t>& shape) {
  std::int64_t n = 1;
  for (const std::int64_t d : shape) n *= d;
  return n;
}

nn::TensorRequest request_of(const MergedTensor& t) {
  return {.name = t.name, .shape = t.shape, .quantizable = t.quantizable};
}

}  // namespace

std::size_t count_not_finite(std::span<const std::byte> bytes, DType dtype) {
  const unsigned exponent = dtype == DType::bf16 ? 0x7f80u : 0x7c00u;
  std::size_t count = 0;
  for (std::size_t i = 0; i + 2 <= bytes.size(); i += 2) {
    std::uint16_t bits = 0;
    std::memcpy(&bits, bytes.data() + i, sizeof bits);
    count += (bits & exponent) == exponent ? 1 : 0;
  }
  return count;
}

std::size_t count_different(std::span<const std::byte> a, std::span<const std::byte> b) {
  MEDVQA_CHECK(a.size() == b.size(), "tensors of one size");
  constexpr unsigned kMagnitude = 0x7fff;
  std::size_t count = 0;
  for (std::size_t i = 0; i + 2 <= a.size(); i += 2) {
    std::uint16_t x = 0, y = 0;
    std::memcpy(&x, a.data() + i, sizeof x);
    std::memcpy(&y, b.data() + i, sizeof y);
    const bool zeros = ((x | y) & kMagnitude) == 0;
    count += x != y && !zeros ? 1 : 0;
  }
  return count;
}

MergedWeights::MergedWeights(ops::Backend& backend, const io::CheckpointFolder& base,
                             const io::PeftAdapter& adapter, nn::QuantizeOnLoad quantize,
                             DType dtype)
    : backend_(backend), base_(base), adapter_(adapter), quantize_(quantize), dtype_(dtype) {
  const std::vector<nn::TensorRequest> architecture = model_tensors(base.config());
  proof_ = io::check_modules(adapter, linears_of(architecture));
  list(architecture);
  // The same text with nothing behind it says what the largest tensor needs.
  ops::DryBackend dry(backend.traits());
  Arenas measuring;
  dry.use_scratch(measuring.scratch());
  for (const MergedTensor& t : tensors_) {
    if (!as_stored(t, t.adapted)) compute(dry, measuring, t, t.adapted);
  }
  arenas_.emplace(backend, measuring.peaks());
}

void MergedWeights::list(const std::vector<nn::TensorRequest>& architecture) {
  std::map<std::string, const nn::TensorRequest*> known;
  for (const nn::TensorRequest& r : architecture) known[r.name] = &r;
  for (const std::string& name : base_.names()) {
    MergedTensor t;
    t.name = name;
    t.stored = base_.stored_name(name);
    t.shape = base_.shape_of(name);
    t.adapted = adapter_.modules().contains(module_of(name));
    const auto found = known.find(name);
    t.quantizable = found != known.end() && found->second->quantizable;
    const DType stored = base_.stored(name).dtype;
    const bool four_bit = base_.nf4(request_of(t)).has_value();
    t.dtype = four_bit || is_floating(stored) ? dtype_ : stored;
    tensors_.push_back(t);
  }
  for (const auto& module : adapter_.modules()) {
    if (base_.contains(module.first + std::string(kWeight))) continue;
    throw UserError(ExitCode::model,
                    fmt::format("{}: module \"{}\" has no weight of its own in {}; a tied head "
                                "cannot take an adapter",
                                adapter_.path().string(), module.first, base_.path().string()));
  }
}

bool MergedWeights::as_stored(const MergedTensor& t, bool adapt) const {
  const bool four_bit = base_.nf4(request_of(t)).has_value() ||
                        (t.quantizable && quantize_ != nn::QuantizeOnLoad::no);
  return !adapt && !four_bit && base_.stored(t.name).dtype == t.dtype;
}

void MergedWeights::add_adapter(ops::Backend& backend, Arena& arena, const MergedTensor& t,
                                const Tensor& weight) const {
  const io::AdapterModule& module = adapter_.modules().at(module_of(t.name));
  const std::int64_t r = adapter_.settings().r;
  const Tensor a = arena.allocate({r, t.shape[1]}, DType::f32);
  const Tensor b = arena.allocate({t.shape[0], r}, DType::f32);
  if (!arena.measuring()) {
    const std::vector<float> a_values = host_values(module.a);
    const std::vector<float> b_values = host_values(module.b);
    backend.upload(a_values.data(), a.bytes(), a);
    backend.upload(b_values.data(), b.bytes(), b);
  }
  backend.gemm(
      {.a = b, .b = a, .c = weight, .alpha = adapter_.settings().scaling(), .accumulate = true});
}

void MergedWeights::compute(ops::Backend& backend, Arenas& arenas, const MergedTensor& t,
                            bool adapt) {
  Arena& arena = arenas.weights();
  const Arena::Scope scope(arena);
  nn::Builder builder(backend, base_, arena, arenas.adapters(), DType::f32, {}, quantize_);
  const bool matrix = t.shape.size() == 2;
  const Shape shape = matrix ? Shape{t.shape[0], t.shape[1]} : Shape{elements(t.shape)};
  const Tensor weight = builder.dequantized(request_of(t), shape);
  if (adapt) add_adapter(backend, arena, t, weight);
  const Tensor rounded = arena.allocate(shape, t.dtype);
  backend.convert(weight, rounded);
  if (arena.measuring()) return;
  bytes_.resize(rounded.bytes());
  backend.download(rounded, bytes_.data(), bytes_.size());
  check_finite(t);
}

void MergedWeights::check_finite(const MergedTensor& t) const {
  const std::size_t count = count_not_finite(bytes_, t.dtype);
  if (count == 0) return;
  throw UserError(ExitCode::model,
                  fmt::format("tensor \"{}\": {} values are not finite in {}; {}", t.stored, count,
                              name_of(t.dtype),
                              t.dtype == DType::f16 ? "export with --dtype bf16"
                                                    : "the adapter or the base is damaged"));
}

std::span<const std::byte> MergedWeights::bytes_of(const MergedTensor& t, bool adapt) {
  if (as_stored(t, adapt)) return base_.stored(t.name).bytes;
  compute(backend_, *arenas_, t, adapt);
  return bytes_;
}

}  // namespace medvqa::train
