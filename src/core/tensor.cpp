#include "medvqa/core/tensor.h"

#include <fmt/format.h>

namespace medvqa {

Shape::Shape(std::span<const std::int64_t> dims) : rank_(static_cast<int>(dims.size())) {
  MEDVQA_CHECK(rank_ <= kMaxRank, fmt::format("rank {} exceeds {}", dims.size(), kMaxRank));
  for (int i = 0; i < rank_; ++i) {
    const std::int64_t d = dims[static_cast<std::size_t>(i)];
    MEDVQA_CHECK(d >= 0, fmt::format("dimension {} is {}", i, d));
    dims_[static_cast<std::size_t>(i)] = d;
  }
}

std::int64_t Shape::dim(int i) const {
  const int at = i < 0 ? rank_ + i : i;
  MEDVQA_CHECK(at >= 0 && at < rank_, fmt::format("dimension {} of {}", i, str()));
  return dims_[static_cast<std::size_t>(at)];
}

std::int64_t Shape::elements() const {
  if (rank_ == 0) return 0;
  std::int64_t n = 1;
  for (int i = 0; i < rank_; ++i) n *= dims_[static_cast<std::size_t>(i)];
  return n;
}

std::string Shape::str() const {
  std::string s = "[";
  for (int i = 0; i < rank_; ++i) {
    if (i > 0) s += ", ";
    s += std::to_string(dims_[static_cast<std::size_t>(i)]);
  }
  return s + "]";
}

Tensor::Tensor(void* memory, DType type, Shape dims) : data(memory), dtype(type), shape(dims) {
  row_stride = shape.rank() == 0 ? 0 : row_elements();
}

namespace {
// Null stays null: the dry run passes tensors that have no memory behind them.
void* advance(const Tensor& t, std::int64_t elements) {
  if (t.data == nullptr) return nullptr;
  return static_cast<std::byte*>(t.data) + elements * static_cast<std::int64_t>(size_of(t.dtype));
}
}  // namespace

Tensor Tensor::reshaped(Shape dims) const {
  MEDVQA_CHECK(dims.elements() == elements(),
               fmt::format("reshape {} to {}", shape.str(), dims.str()));
  Tensor t(data, dtype, dims);
  if (!contiguous()) {
    MEDVQA_CHECK(dims.dim(0) == dim(0),
                 fmt::format("reshape of a block of columns {} to {}", shape.str(), dims.str()));
    t.row_stride = row_stride;
  }
  return t;
}

Tensor Tensor::rows_between(std::int64_t begin, std::int64_t end) const {
  MEDVQA_CHECK(0 <= begin && begin <= end && end <= dim(0),
               fmt::format("rows [{}, {}) of {}", begin, end, shape.str()));
  std::array<std::int64_t, Shape::kMaxRank> dims{};
  for (int i = 0; i < shape.rank(); ++i) dims[static_cast<std::size_t>(i)] = dim(i);
  dims[0] = end - begin;
  Tensor t(advance(*this, begin * row_stride), dtype,
           Shape(std::span(dims.data(), static_cast<std::size_t>(shape.rank()))));
  t.row_stride = row_stride;
  return t;
}

Tensor Tensor::columns(std::int64_t begin, std::int64_t end) const {
  MEDVQA_CHECK(shape.rank() == 2 && 0 <= begin && begin <= end && end <= dim(1),
               fmt::format("columns [{}, {}) of {}", begin, end, shape.str()));
  Tensor t(advance(*this, begin), dtype, {dim(0), end - begin});
  t.row_stride = row_stride;
  return t;
}

std::string Tensor::str() const {
  return fmt::format("{} {}", name_of(dtype), shape.str());
}

}  // namespace medvqa
