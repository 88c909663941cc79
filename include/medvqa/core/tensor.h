// Shape and Tensor: a typed view of memory that somebody else owns.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

#include "medvqa/core/dtype.h"
#include "medvqa/core/error.h"

namespace medvqa {

// Up to four dimensions, row-major. A default Shape has rank 0 and stands for "no tensor".
class Shape {
 public:
  static constexpr int kMaxRank = 4;

  Shape() = default;
  Shape(std::initializer_list<std::int64_t> dims) : Shape(std::span(dims.begin(), dims.size())) {}
  explicit Shape(std::span<const std::int64_t> dims);

  int rank() const { return rank_; }
  // Negative indices count from the end, as in dim(-1) for the innermost.
  std::int64_t dim(int i) const;
  std::int64_t elements() const;
  std::string str() const;
  bool operator==(const Shape&) const = default;

 private:
  std::array<std::int64_t, kMaxRank> dims_{};
  int rank_ = 0;
};

// Never owns. Row-major; everything inside one index of dimension 0 is contiguous, and successive
// indices of dimension 0 stand `row_stride` elements apart. A contiguous tensor has
// row_stride == elements / dim(0); a larger one makes the tensor a block of columns, such as the
// queries inside a packed query-key-value matrix.
struct Tensor {
  void* data = nullptr;
  DType dtype = DType::f32;
  Shape shape;
  std::int64_t row_stride = 0;

  Tensor() = default;
  Tensor(void* memory, DType type, Shape dims);

  // False for "no tensor": optional operands are left default-constructed.
  explicit operator bool() const { return shape.rank() > 0; }
  std::int64_t dim(int i) const { return shape.dim(i); }
  std::int64_t elements() const { return shape.elements(); }
  // All dimensions but the last, flattened; only for contiguous tensors if the rank exceeds 2.
  std::int64_t rows() const { return dim(-1) == 0 ? 0 : elements() / dim(-1); }
  std::int64_t row_elements() const { return dim(0) == 0 ? 0 : elements() / dim(0); }
  bool contiguous() const { return dim(0) <= 1 || row_stride == row_elements(); }
  std::size_t bytes() const { return static_cast<std::size_t>(elements()) * size_of(dtype); }

  // The same memory under another shape. Contiguous tensors take any shape of as many elements;
  // a block of columns must keep dimension 0.
  Tensor reshaped(Shape dims) const;
  // Indices [begin, end) of dimension 0.
  Tensor rows_between(std::int64_t begin, std::int64_t end) const;
  // Columns [begin, end) of a rank-2 tensor.
  Tensor columns(std::int64_t begin, std::int64_t end) const;

  template <class T>
  T* as() const {
    MEDVQA_CHECK(dtype_of<T>() == dtype, "tensor is " + std::string(name_of(dtype)) +
                                             ", asked for as " +
                                             std::string(name_of(dtype_of<T>())));
    return static_cast<T*>(data);
  }
  std::string str() const;
};

}  // namespace medvqa
