// From a tensor's run-time type to a kernel's template argument.
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>

#include "machine.h"
#include "medvqa/core/tensor.h"

namespace medvqa::cuda {

template <class T>
constexpr DType storage_dtype() {
  if constexpr (std::is_same_v<T, bf16>) {
    return DType::bf16;
  } else if constexpr (std::is_same_v<T, f16>) {
    return DType::f16;
  } else {
    return dtype_of<T>();
  }
}

// The elements of a tensor of that type.
template <class T>
T* elements_of(const Tensor& t) {
  MEDVQA_CHECK(storage_dtype<T>() == t.dtype, "tensor is " + std::string(name_of(t.dtype)) +
                                                  ", asked for as " +
                                                  std::string(name_of(storage_dtype<T>())));
  return static_cast<T*>(t.data);
}

// Calls f.template operator()<T>() with T = float, bf16 or f16.
template <class F>
void dispatch_storage(DType type, F&& f) {
  switch (type) {
    case DType::f32:
      return f.template operator()<float>();
    case DType::bf16:
      return f.template operator()<bf16>();
    case DType::f16:
      return f.template operator()<f16>();
    default:
      break;
  }
  MEDVQA_CHECK(false, "expected f32, bf16 or f16, found " + std::string(name_of(type)));
}

// How many blocks of `per_block` cover n; a grid's first dimension.
inline unsigned blocks_for(std::int64_t n, std::int64_t per_block) {
  const std::int64_t blocks = (n + per_block - 1) / per_block;
  MEDVQA_CHECK(blocks <= INT32_MAX, "a grid of " + std::to_string(blocks) + " blocks");
  return static_cast<unsigned>(blocks);
}

}  // namespace medvqa::cuda
