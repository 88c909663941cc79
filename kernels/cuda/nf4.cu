// NF4 weights and back; quant/nf4.h has the arithmetic, and the results are equal to the bit.
#include "medvqa/quant/nf4.h"

#include <cstdint>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/device/nf4_blocks.h"
#include "kernels/cuda/device/reduce.h"

namespace medvqa::cuda {

namespace {

// A thread turns a word of eight codes into eight elements, kWords times. Neighbouring threads take
// neighbouring words: loads of 128 bytes a warp, and for 16-bit types stores of 16 bytes a thread
// without gaps; stores are four fifths of the traffic.
constexpr int kThreads = 256;
constexpr int kWords = 4;
constexpr int kWordElements = 8;

// R: what the checkpoint says values are rounded to; T: what they are stored as.
template <class T, class R>
__device__ T rounded(float value) {
  return from_float<T>(to_float(from_float<R>(value)));
}

// Eight elements from eight codes.
template <class T, class R>
__device__ void store_word(const float* code, float absmax, std::uint32_t word, T* y) {
  constexpr int kVector = sizeof(T) == 2 ? 8 : 4;
#pragma unroll
  for (int part = 0; part < kWordElements / kVector; ++part) {
    Vector<T, kVector> v;
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      v[i] = rounded<T, R>(code[nf4_code_at(word, part * kVector + i)] * absmax);
    }
    store_vector(y + part * kVector, v);
  }
}

template <class T, class R, bool Nested>
__global__ void __launch_bounds__(kThreads) dequantize_kernel(Nf4Blocks w, std::int64_t n, T* y) {
  __shared__ float code[16];  // sixteen banks: no lookup waits for another
  if (threadIdx.x < 16) code[threadIdx.x] = w.code[threadIdx.x];
  __syncthreads();
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kThreads * kWords;
  std::uint32_t words[kWords];
#pragma unroll
  for (int i = 0; i < kWords; ++i) {
    const std::int64_t at = first + i * kThreads + threadIdx.x;
    if ((at + 1) * kWordElements > n) continue;
    const Vector<std::uint32_t, 1> word =
        load_vector<std::uint32_t, 1>(reinterpret_cast<const std::uint32_t*>(w.packed) + at);
    words[i] = word[0];
  }
#pragma unroll
  for (int i = 0; i < kWords; ++i) {
    const std::int64_t begin = (first + i * kThreads + threadIdx.x) * kWordElements;
    if (begin >= n) break;
    const float absmax = block_absmax<Nested>(w, begin / w.block_size);
    if (begin + kWordElements <= n) {
      store_word<T, R>(code, absmax, words[i], y + begin);
      continue;
    }
    for (std::int64_t e = begin; e < n; ++e) {
      const unsigned byte = w.packed[e / 2];
      y[e] = rounded<T, R>(code[e % 2 == 0 ? byte >> 4 : byte & 15u] * absmax);
    }
  }
}

// A warp a block of 64: each lane has two neighbours, and so a byte of codes.
template <class T>
__global__ void __launch_bounds__(kThreads)
    quantize_kernel(const T* x, std::int64_t n, std::uint8_t* packed, float* absmax) {
  static_assert(quant::kNf4BlockSize == 64);
  const std::int64_t block =
      static_cast<std::int64_t>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  const std::int64_t begin = block * quant::kNf4BlockSize;
  if (begin >= n) return;
  const unsigned lane = threadIdx.x % 32;
  const std::int64_t e = begin + 2 * lane;
  const float first = e < n ? to_float(x[e]) : 0;
  const float second = e + 1 < n ? to_float(x[e + 1]) : 0;
  const float largest = warp_max(fmaxf(fabsf(first), fabsf(second)));
  const float inverse = largest == 0 ? 0.0f : 1.0f / largest;
  if (lane == 0) absmax[block] = largest;
  if (e >= n) return;
  const std::uint8_t high = quant::nf4_code(first * inverse);
  packed[e / 2] = quant::nf4_pack(high, quant::nf4_code(second * inverse));
}

bool aligned(const void* p) {
  return reinterpret_cast<std::uintptr_t>(p) % 16 == 0;
}

}  // namespace

void CudaBackend::do_dequantize_nf4(const ops::Nf4Weight& w, const Tensor& y_OI) {
  const std::int64_t n = w.out * w.in;
  if (n == 0) return;
  MEDVQA_CHECK(w.block_size % kWordElements == 0, "nf4: a word of codes must lie in one block");
  MEDVQA_CHECK(aligned(w.packed.data) && aligned(y_OI.data), "nf4: tensors must be aligned to 16");
  const unsigned grid = blocks_for(n, kThreads * kWords * kWordElements);
  dispatch_storage(y_OI.dtype, [&]<class T>() {
    dispatch_storage(w.rounded_to, [&]<class R>() {
      const auto kernel =
          w.nested() ? dequantize_kernel<T, R, true> : dequantize_kernel<T, R, false>;
      launch(kernel, grid, kThreads, 0, stream_, nf4_blocks(w), n, elements_of<T>(y_OI));
    });
  });
}

void CudaBackend::do_quantize_nf4(const Tensor& x, const Tensor& packed, const Tensor& absmax) {
  const std::int64_t n = x.elements();
  if (n == 0) return;
  dispatch_storage(x.dtype, [&]<class T>() {
    launch(quantize_kernel<T>, blocks_for(absmax.dim(0), kThreads / 32), kThreads, 0, stream_,
           elements_of<T>(x), n, elements_of<std::uint8_t>(packed), elements_of<float>(absmax));
  });
}

}  // namespace medvqa::cuda
