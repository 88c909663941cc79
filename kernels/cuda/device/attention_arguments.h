// What attention's kernels are told, and where a block of them stands in the packed samples.
// T query rows, S key rows, H query heads, G key/value heads, D head size.
#pragma once

#include <cstdint>

#include "kernels/cuda/device/storage.h"
#include "machine.h"
#include "medvqa/ops/params.h"

namespace medvqa::cuda {

// A tensor [rows, heads, D]; data may be null for a gradient that nobody asks for.
template <class T>
struct Heads {
  T* data = nullptr;
  std::int64_t stride = 0;  // elements between rows
  bool vectors = false;     // every head of every row starts at a multiple of 16 bytes
};

// Neighbouring rows of one head.
template <class T>
struct HeadRows {
  T* data;
  std::int64_t stride;
  int count;
  bool vectors;
  __device__ T* row(int i) const { return data + i * stride; }
  // From row `i` on; none where there are not so many.
  __device__ HeadRows from(int i) const {
    return {data + i * stride, stride, count > i ? count - i : 0, vectors};
  }
};

template <class T>
struct HeadGradient {
  Heads<T> to;
  bool accumulate = false;
};

template <class T>
struct AttentionArguments {
  Heads<const T> q, k, v;
  float* lse;  // [H, T]
  std::int64_t lse_stride;
  const std::int32_t *cu_q, *cu_k;
  int shared;  // query heads that read one key/value head
  int size;    // D
  bool causal;
  float scale;
};

__device__ inline int lesser(int a, int b) {
  return a < b ? a : b;
}

struct Sample {
  int q_begin, q_count, k_begin, k_count;
  bool causal;
  // Keys that query row `i` of the sample may see. It grows with i.
  __device__ int visible(int i) const { return causal ? lesser(i + 1, k_count) : k_count; }
};

template <class T>
__device__ inline Sample sample_of(const AttentionArguments<T>& p, unsigned index) {
  const int q = p.cu_q[index], k = p.cu_k[index];
  return {q, p.cu_q[index + 1] - q, k, p.cu_k[index + 1] - k, p.causal};
}

template <class T>
__device__ inline HeadRows<T> rows_of(const Heads<T>& t, int begin, int count, int head, int size) {
  return {t.data + begin * t.stride + head * size, t.stride, count > 0 ? count : 0, t.vectors};
}

// Overwrites, or adds in f32 and rounds once.
template <class T>
__device__ inline void put(T* to, float value, bool accumulate) {
  *to = from_float<T>(accumulate ? to_float(*to) + value : value);
}

constexpr float kLog2E = 1.44269504f;
constexpr float kLn2 = 0.693147181f;

template <class T>
Heads<T> heads_of(const Tensor& t) {
  if (!t) return {};
  const auto aligned = [](std::uintptr_t bytes) { return bytes % 16 == 0; };
  T* data = elements_of<std::remove_const_t<T>>(t);
  const bool vectors = aligned(reinterpret_cast<std::uintptr_t>(data)) &&
                       aligned(static_cast<std::uintptr_t>(t.row_stride) * sizeof(T)) &&
                       aligned(static_cast<std::uintptr_t>(t.dim(2)) * sizeof(T));
  return {data, t.row_stride, vectors};
}

template <class T>
HeadGradient<T> gradient_of(const ops::GradOut& d) {
  return {heads_of<T>(d.tensor), d.accumulate};
}

template <class T>
AttentionArguments<T> arguments_of(const ops::Attention& p) {
  return {.q = heads_of<const T>(p.q_THD),
          .k = heads_of<const T>(p.k_SGD),
          .v = heads_of<const T>(p.v_SGD),
          .lse = elements_of<float>(p.lse_HT),
          .lse_stride = p.lse_HT.row_stride,
          .cu_q = elements_of<std::int32_t>(p.cu_q_N),
          .cu_k = elements_of<std::int32_t>(p.cu_k_N),
          .shared = static_cast<int>(p.q_THD.dim(1) / p.k_SGD.dim(1)),
          .size = static_cast<int>(p.q_THD.dim(2)),
          .causal = p.causal,
          .scale = static_cast<float>(p.scale)};
}

// Tiles of the longest sample x heads x samples.
inline dim3 attention_grid(const ops::Attention& p, std::int64_t longest, std::int64_t tile,
                           std::int64_t heads) {
  return dim3(blocks_for(longest, tile), static_cast<unsigned>(heads),
              static_cast<unsigned>(p.cu_q_N.dim(0) - 1));
}

}  // namespace medvqa::cuda
