// The machine a kernel of kernels/cuda is written for: NVIDIA, sm_75 and newer. The same names as
// kernels/emulation/machine.h, where they are explained; kernels include "machine.h" and the
// include path decides. No other header brings CUDA's into a kernel.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>

#include "kernels/cuda/device_memory.h"
#include "kernels/cuda/nvidia/matrix.h"
#include "medvqa/core/error.h"

namespace medvqa::cuda {

using bf16 = __nv_bfloat16;
using f16 = __half;

__device__ inline float to_float(float x) {
  return x;
}
__device__ inline float to_float(bf16 x) {
  return __bfloat162float(x);
}
__device__ inline float to_float(f16 x) {
  return __half2float(x);
}
template <class T>
__device__ inline T from_float(float x) {
  if constexpr (std::is_same_v<T, bf16>) {
    return __float2bfloat16_rn(x);
  } else if constexpr (std::is_same_v<T, f16>) {
    return __float2half_rn(x);
  } else {
    return static_cast<T>(x);
  }
}

template <class T, int N>
struct alignas(sizeof(T) * N) Vector {
  static_assert(sizeof(T) * N <= 16 && (N & (N - 1)) == 0);
  T element[N];
  __device__ T& operator[](int i) { return element[i]; }
  __device__ const T& operator[](int i) const { return element[i]; }
};

// The word that moves so many bytes in one instruction.
template <std::size_t Bytes>
using Word = std::conditional_t<
    Bytes == 16, uint4,
    std::conditional_t<
        Bytes == 8, uint2,
        std::conditional_t<Bytes == 4, unsigned,
                           std::conditional_t<Bytes == 2, unsigned short, unsigned char>>>>;

template <class T, int N>
__device__ inline Vector<T, N> load_vector(const T* from) {
  using W = Word<sizeof(Vector<T, N>)>;
  Vector<T, N> v;
  const W word = *reinterpret_cast<const W*>(from);
  memcpy(&v, &word, sizeof(v));
  return v;
}
template <class T, int N>
__device__ inline void store_vector(T* to, const Vector<T, N>& v) {
  using W = Word<sizeof(Vector<T, N>)>;
  W word;
  memcpy(&word, &v, sizeof(v));
  *reinterpret_cast<W*>(to) = word;
}

template <class T>
__device__ inline T* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char dynamic_shared_memory[];
  return reinterpret_cast<T*>(dynamic_shared_memory);
}

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
__device__ inline unsigned reduce_add_sync(unsigned mask, unsigned value) {
  return __reduce_add_sync(mask, value);
}
__device__ inline unsigned reduce_max_sync(unsigned mask, unsigned value) {
  return __reduce_max_sync(mask, value);
}
__device__ inline unsigned reduce_min_sync(unsigned mask, unsigned value) {
  return __reduce_min_sync(mask, value);
}
#else
// Every lane of the mask reads each other in the order of lanes: integers, so any order will do.
template <class F>
__device__ inline unsigned reduce_lanes(unsigned mask, unsigned value, F&& join) {
  unsigned result = value;
  const unsigned own = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  for (unsigned rest = mask; rest != 0; rest &= rest - 1) {
    const int lane = __ffs(static_cast<int>(rest)) - 1;
    const unsigned other = __shfl_sync(mask, value, lane);
    if (static_cast<unsigned>(lane) != own % 32) result = join(result, other);
  }
  return result;
}
__device__ inline unsigned reduce_add_sync(unsigned mask, unsigned value) {
  return reduce_lanes(mask, value, [](unsigned a, unsigned b) { return a + b; });
}
__device__ inline unsigned reduce_max_sync(unsigned mask, unsigned value) {
  return reduce_lanes(mask, value, [](unsigned a, unsigned b) { return a > b ? a : b; });
}
__device__ inline unsigned reduce_min_sync(unsigned mask, unsigned value) {
  return reduce_lanes(mask, value, [](unsigned a, unsigned b) { return a < b ? a : b; });
}
#endif

__device__ inline void cp_async16(void* shared, const void* global, bool valid = true) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
  const auto to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(to), "l"(global), "r"(bytes)
               : "memory");
#else
  *static_cast<uint4*>(shared) = valid ? *static_cast<const uint4*>(global) : uint4{0, 0, 0, 0};
#endif
}
__device__ inline void cp_async_commit() {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;\n" ::: "memory");
#endif
}
template <int Pending>
__device__ inline void cp_async_wait() {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;\n" ::"n"(Pending) : "memory");
#endif
}

// Throws DeviceError where `status` is a failure.
inline void check_cuda(cudaError_t status, const char* expression, const char* file, int line) {
  if (status == cudaSuccess) return;
  throw DeviceError(std::string(expression) + " failed at " + file + ":" + std::to_string(line) +
                    ": " + cudaGetErrorString(status));
}
#define MEDVQA_CUDA_CALL(expression) \
  ::medvqa::cuda::check_cuda((expression), #expression, __FILE__, __LINE__)

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t dynamic_shared_bytes,
            Stream stream, Arguments&&... arguments) {
  static_assert(sizeof...(Parameters) == sizeof...(Arguments));
  constexpr std::size_t kWithoutAsking = 48 * 1024;
  if (dynamic_shared_bytes > kWithoutAsking) {
    MEDVQA_CUDA_CALL(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                          cudaFuncAttributeMaxDynamicSharedMemorySize,
                                          static_cast<int>(dynamic_shared_bytes)));
  }
  kernel<<<grid, block, dynamic_shared_bytes, stream>>>(
      static_cast<Parameters>(std::forward<Arguments>(arguments))...);
  MEDVQA_CUDA_CALL(cudaGetLastError());
}

}  // namespace medvqa::cuda
