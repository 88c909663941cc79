// Rows of tensors moved 16 bytes at a time where all of an operation's tensors allow it, element
// by element where one does not.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "kernels/cuda/device/storage.h"
#include "medvqa/ops/params.h"

namespace medvqa::cuda {

// The elements of T that one instruction moves at most.
template <class T>
inline constexpr int kVectorElements = 16 / static_cast<int>(sizeof(T));

// A tensor whose rows stand `stride` elements apart; null for a tensor nobody gave.
template <class T>
struct RowPointer {
  T* data = nullptr;
  std::int64_t stride = 0;
  __device__ T* operator[](std::int64_t row) const { return data + row * stride; }
};

template <class T>
RowPointer<T> row_pointer(const Tensor& t) {
  if (!t) return {};
  return {elements_of<T>(t), t.row_stride};
}

// A gradient whose rows a kernel writes; null for one that nobody needs.
template <class T>
struct GradientRows {
  RowPointer<T> rows;
  bool accumulate = false;
};

template <class T>
GradientRows<T> gradient_rows(const ops::GradOut& g) {
  return {row_pointer<T>(g.tensor), g.accumulate};
}

// Overwrites N neighbours, or adds to them in f32 and rounds once.
template <class T, int N>
__device__ inline void put_vector(T* to, const float (&value)[N], bool accumulate) {
  Vector<T, N> v;
  if (accumulate) {
    v = load_vector<T, N>(to);
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] = from_float<T>(to_float(v[i]) + value[i]);
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] = from_float<T>(value[i]);
  }
  store_vector(to, v);
}

// Whether each of `rows` rows of every tensor (absent ones aside) begins on 16 bytes, and `columns`
// elements fill whole vectors of T.
template <class T>
bool rows_take_vectors(std::int64_t rows, std::int64_t columns,
                       std::initializer_list<const Tensor*> tensors) {
  if (columns % kVectorElements<T> != 0) return false;
  for (const Tensor* t : tensors) {
    if (!*t) continue;
    if (reinterpret_cast<std::uintptr_t>(t->data) % 16 != 0) return false;
    const std::int64_t row_bytes = t->row_stride * static_cast<std::int64_t>(size_of(t->dtype));
    if (rows > 1 && row_bytes % 16 != 0) return false;
  }
  return true;
}

// Calls f.template operator()<N>() with the elements of T a kernel is to move at a time.
template <class T, class F>
void dispatch_vectors(bool vectors, F&& f) {
  if (vectors) {
    f.template operator()<kVectorElements<T>>();
  } else {
    f.template operator()<1>();
  }
}

}  // namespace medvqa::cuda
