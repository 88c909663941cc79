#include "medvqa/nn/builder.h"

#include <fmt/format.h>

#include <array>
#include <vector>

#include "medvqa/quant/dynamic_map.h"
#include "medvqa/quant/nf4.h"

namespace medvqa::nn {

namespace {

// Converts stored elements to the type they have in device memory.
std::vector<std::byte> converted(const HostTensor& t, DType type) {
  std::vector<std::byte> out(t.bytes.size() / size_of(t.dtype) * size_of(type));
  convert_elements(t.bytes, t.dtype, out, type);
  return out;
}

std::int64_t elements(const HostTensor& t) {
  std::int64_t n = 1;
  for (const std::int64_t d : t.shape) n *= d;
  return n;
}

HostTensor floating(const WeightSource& source, const TensorRequest& request) {
  HostTensor t = source.dense(request);
  if (is_floating(t.dtype)) return t;
  throw UserError(ExitCode::model,
                  fmt::format("tensor {} has type {}, expected a floating type; the checkpoint "
                              "is damaged or of another family",
                              request.name, name_of(t.dtype)));
}

}  // namespace

Builder::Builder(ops::Backend& backend, const WeightSource& source, Arena& weights, Arena& adapters,
                 DType compute, LoraOptions lora, QuantizeOnLoad quantize, Dequantize dequantize,
                 std::vector<std::int32_t> head_rows, ops::Place embedding)
    : backend_(backend),
      source_(source),
      weights_(weights),
      adapters_(adapters),
      compute_(compute),
      lora_(std::move(lora)),
      quantize_(quantize),
      dequantize_(dequantize),
      head_rows_(std::move(head_rows)),
      embedding_(embedding) {}

void Builder::upload(const HostTensor& t, const Tensor& out) {
  if (t.bytes.empty() || weights_.measuring()) return;
  if (t.dtype == out.dtype) {
    backend_.upload(t.bytes.data(), t.bytes.size(), out);
  } else {
    const std::vector<std::byte> bytes = converted(t, out.dtype);
    backend_.upload(bytes.data(), bytes.size(), out);
  }
}

Tensor Builder::upload(const HostTensor& t, DType type, Shape shape) {
  const Tensor out = weights_.allocate(shape, type);
  upload(t, out);
  return out;
}

HostTensor Builder::read(const TensorRequest& request) {
  HostTensor t = floating(source_, request);
  count_.frozen += elements(t);
  return t;
}

HostTensor Builder::read_on_host(const TensorRequest& request) {
  host_tables_ = true;
  return read(request);
}

Parameter Builder::parameter(Shape shape) {
  count_.trainable += shape.elements();
  const DType type = accumulator_of(compute_);
  const Tensor value = adapters_.allocate(shape, type);
  return {value, adapters_.allocate(shape, type)};
}

Tensor Builder::head(const TensorRequest& request, const Tensor& tied) {
  if (!head_rows_.empty()) return train_head(request);
  return tied ? tied : dense(request, {request.shape.at(0), request.shape.at(1)});
}

Tensor Builder::train_head(const TensorRequest& request) {
  const HostTensor all = floating(source_, request);
  const std::int64_t channels = request.shape.at(1);
  const auto rows = static_cast<std::int64_t>(head_rows_.size());
  trained_head_ = parameter({rows, channels});
  const Tensor& value = trained_head_->value;
  if (all.bytes.empty() || weights_.measuring()) return value;
  const auto row_bytes = static_cast<std::size_t>(channels) * size_of(all.dtype);
  for (std::int64_t i = 0; i < rows; ++i) {
    const std::int64_t row = head_rows_[static_cast<std::size_t>(i)];
    MEDVQA_CHECK(row >= 0 && row < request.shape.at(0), "a head's rows are of its vocabulary");
    HostTensor one = all;
    one.bytes = all.bytes.subspan(static_cast<std::size_t>(row) * row_bytes, row_bytes);
    const std::vector<std::byte> bytes = converted(one, value.dtype);
    backend_.upload(bytes.data(), bytes.size(), value.rows_between(i, i + 1));
  }
  return value;
}

Tensor Builder::dense(const TensorRequest& request, Shape shape) {
  return upload(read(request), compute_, shape);
}

Tensor Builder::dequantized(const TensorRequest& request, Shape shape) {
  const Tensor out = weights_.allocate(shape, compute_);
  const Arena::Scope packed(weights_);
  if (const std::optional<ops::Nf4Weight> w = nf4(request)) {
    if (!weights_.measuring()) backend_.dequantize_nf4(*w, out);
  } else {
    upload(read(request), out);
  }
  return out;
}

std::optional<ops::Nf4Weight> Builder::nf4(const TensorRequest& request) {
  if (const std::optional<HostNf4> stored = source_.nf4(request)) {
    count_.frozen += stored->out * stored->in;
    return upload_nf4(*stored);
  }
  if (quantize_ == QuantizeOnLoad::no || !request.quantizable) return std::nullopt;
  return quantize(request);
}

ops::Nf4Weight Builder::upload_nf4(const HostNf4& w) {
  ops::Nf4Weight d;
  d.out = w.out;
  d.in = w.in;
  d.block_size = w.block_size;
  d.rounded_to = w.dtype;
  d.packed = upload(w.packed, DType::u8, {elements(w.packed)});
  d.absmax = upload(w.absmax, w.absmax.dtype, {elements(w.absmax)});
  d.code = upload(w.code, DType::f32, {16});
  if (w.nested) {
    d.nested_absmax = upload(w.nested_absmax, DType::f32, {elements(w.nested_absmax)});
    d.nested_map = upload(w.nested_map, DType::f32, {256});
    d.nested_offset = w.nested_offset;
    d.nested_block_size = w.nested_block_size;
  }
  return d;
}

// On the device, which holds the dense weight for as long as that takes. The second level, a 64th
// of the values, is the host's.
ops::Nf4Weight Builder::quantize(const TensorRequest& request) {
  const HostTensor t = floating(source_, request);
  DescribedWeights::Options options;
  options.nf4 = true;
  options.nested = quantize_ == QuantizeOnLoad::nf4_nested;
  options.dtype = t.dtype;
  HostNf4 shapes = *DescribedWeights(options).nf4(request);
  shapes.code.bytes = std::as_bytes(std::span(quant::kNf4Code));
  count_.frozen += shapes.out * shapes.in;
  ops::Nf4Weight w = upload_nf4(shapes);
  const Arena::Scope temporaries(weights_);
  const Tensor dense =
      upload(t, t.dtype == DType::f64 ? DType::f32 : t.dtype, {shapes.out, shapes.in});
  const Tensor absmax = shapes.nested ? weights_.allocate(w.absmax.shape, DType::f32) : w.absmax;
  if (t.bytes.empty() || weights_.measuring()) return w;
  backend_.quantize_nf4(dense, w.packed, absmax);
  if (!shapes.nested) return w;
  std::vector<float> maxima(static_cast<std::size_t>(absmax.elements()));
  backend_.download(absmax, maxima.data(), absmax.bytes());
  const quant::NestedAbsmax nested = quant::quantize_absmax(maxima);
  const auto& map = quant::signed_dynamic_map();
  backend_.upload(nested.codes.data(), nested.codes.size(), w.absmax);
  backend_.upload(nested.absmax.data(), w.nested_absmax.bytes(), w.nested_absmax);
  backend_.upload(map.data(), w.nested_map.bytes(), w.nested_map);
  w.nested_offset = nested.offset;
  return w;
}

std::shared_ptr<LoraModule> Builder::lora(const std::string& name, LinearKind kind,
                                          std::int64_t out, std::int64_t in) {
  if (!lora_.adapts || !lora_.adapts(name, kind)) return nullptr;
  auto m = std::make_shared<LoraModule>();
  m->name = name;
  m->r = lora_.r;
  m->in = in;
  m->out = out;
  m->scaling = lora_.scaling;
  m->dropout = lora_.dropout;
  m->stream = modules_.size();
  m->a = parameter({m->r, in});
  m->b = parameter({out, m->r});
  modules_.push_back(m);
  return m;
}

}  // namespace medvqa::nn
