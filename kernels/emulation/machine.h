// The machine a kernel of kernels/cuda is written for, as the host emulates it: the same names as
// kernels/cuda/nvidia/machine.h. Kernels include "machine.h" and the include path decides.
//
// CUDA's own names, with CUDA's meaning: __global__ __device__ __host__ __shared__ __constant__
//   __align__ __forceinline__ __launch_bounds__; dim3, uint3; threadIdx blockIdx blockDim gridDim;
//   __syncthreads, __syncwarp; __shfl_sync, __shfl_up_sync, __shfl_down_sync, __shfl_xor_sync;
//   __ballot_sync, __any_sync, __all_sync; integer atomicAdd, -Sub, -Min, -Max, -And, -Or, -Xor,
//   -Exch, -CAS (float atomics do not compile: their order is not determined).
// In medvqa::cuda: bf16, f16, to_float, from_float, Vector, load_vector, store_vector, launch,
//   dynamic_shared, reduce_*_sync, cp_async16, ldmatrix, mma_*. Floating point: fmaf, expf, logf,
//   sqrtf, ... of <cmath>; nothing that only one of the two machines has.
//
// One fiber runs each thread of a block, blocks run one after another, and every load and store of
// the kernel is checked: bounds, alignment, races between barriers, uninitialised shared memory.
// A broken rule ends the launch with EmulationFault (fault.h).
#pragma once

#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>

#include "kernels/cuda/device_memory.h"
#include "kernels/emulation/emulator.h"
#include "kernels/emulation/matrix.h"
#include "medvqa/core/dtype.h"

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __constant__ static const
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))

#define threadIdx (::medvqa::emulation::thread_index())
#define blockIdx (::medvqa::emulation::block_index())
#define blockDim (::medvqa::emulation::block_shape())
#define gridDim (::medvqa::emulation::grid_shape())

inline constexpr int warpSize = 32;

// The file and line of a call, so that a fault can say where and two sites can be told apart; the
// compiler may copy or move the call itself.
#define MEDVQA_EMULATION_SITE ::medvqa::emulation::Site site = {__builtin_FILE(), __builtin_LINE()}

inline void __syncthreads(MEDVQA_EMULATION_SITE) {
  ::medvqa::emulation::block_barrier(site);
}
inline void __syncwarp(unsigned mask = 0xffffffffu, MEDVQA_EMULATION_SITE) {
  ::medvqa::emulation::warp_barrier(mask, site);
}

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = warpSize, MEDVQA_EMULATION_SITE) {
  using ::medvqa::emulation::Shuffle;
  return ::medvqa::emulation::shuffle(Shuffle::index, mask, value, source, width, site);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize,
                 MEDVQA_EMULATION_SITE) {
  using ::medvqa::emulation::Shuffle;
  return ::medvqa::emulation::shuffle(Shuffle::up, mask, value, static_cast<int>(delta), width,
                                      site);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize,
                   MEDVQA_EMULATION_SITE) {
  using ::medvqa::emulation::Shuffle;
  return ::medvqa::emulation::shuffle(Shuffle::down, mask, value, static_cast<int>(delta), width,
                                      site);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = warpSize, MEDVQA_EMULATION_SITE) {
  using ::medvqa::emulation::Shuffle;
  return ::medvqa::emulation::shuffle(Shuffle::exclusive_or, mask, value, lanes, width, site);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, MEDVQA_EMULATION_SITE) {
  return ::medvqa::emulation::ballot(mask, predicate != 0, site);
}
inline int __any_sync(unsigned mask, int predicate, MEDVQA_EMULATION_SITE) {
  return ::medvqa::emulation::ballot(mask, predicate != 0, site) != 0 ? 1 : 0;
}
inline int __all_sync(unsigned mask, int predicate, MEDVQA_EMULATION_SITE) {
  return ::medvqa::emulation::ballot(mask, predicate != 0, site) == mask ? 1 : 0;
}

namespace medvqa::emulation {
template <class T>
concept AtomicInteger = std::integral<T> &&(sizeof(T) == 4 || sizeof(T) == 8);

template <AtomicInteger T, class F>
T atomic(T* address, F&& update) {
  check_atomic(address, sizeof(T));
  T old;
  move_unchecked(&old, address, sizeof(T));
  const T value = update(old);
  move_unchecked(address, &value, sizeof(T));
  return old;
}
}  // namespace medvqa::emulation

template <::medvqa::emulation::AtomicInteger T>
T atomicAdd(T* address, std::type_identity_t<T> value) {
  return ::medvqa::emulation::atomic(address, [=](T old) { return static_cast<T>(old + value); });
}
template <::medvqa::emulation::AtomicInteger T>
T atomicSub(T* address, std::type_identity_t<T> value) {
  return ::medvqa::emulation::atomic(address, [=](T old) { return static_cast<T>(old - value); });
}
template <::medvqa::emulation::AtomicInteger T>
T atomicMin(T* address, std::type_identity_t<T> value) {
  return ::medvqa::emulation::atomic(address, [=](T old) { return old < value ? old : value; });
}
template <::medvqa::emulation::AtomicInteger T>
T atomicMax(T* address, std::type_identity_t<T> value) {
  return ::medvqa::emulation::atomic(address, [=](T old) { return old > value ? old : value; });
}
template <::medvqa::emulation::AtomicInteger T>
T atomicAnd(T* address, std::type_identity_t<T> value) {
  return ::medvqa::emulation::atomic(address, [=](T old) { return static_cast<T>(old & value); });
}
template <::medvqa::emulation::AtomicInteger T>
T atomicOr(T* address, std::type_identity_t<T> value) {
  return ::medvqa::emulation::atomic(address, [=](T old) { return static_cast<T>(old | value); });
}
template <::medvqa::emulation::AtomicInteger T>
T atomicXor(T* address, std::type_identity_t<T> value) {
  return ::medvqa::emulation::atomic(address, [=](T old) { return static_cast<T>(old ^ value); });
}
template <::medvqa::emulation::AtomicInteger T>
T atomicExch(T* address, std::type_identity_t<T> value) {
  return ::medvqa::emulation::atomic(address, [=](T) { return value; });
}
template <::medvqa::emulation::AtomicInteger T>
T atomicCAS(T* address, std::type_identity_t<T> compare, std::type_identity_t<T> value) {
  return ::medvqa::emulation::atomic(address, [=](T old) { return old == compare ? value : old; });
}

namespace medvqa::cuda {

using bf16 = BFloat16;
using f16 = Float16;

inline float to_float(float x) {
  return x;
}
inline float to_float(bf16 x) {
  return static_cast<float>(x);
}
inline float to_float(f16 x) {
  return static_cast<float>(x);
}
// Rounded to nearest even.
template <class T>
T from_float(float x) {
  return static_cast<T>(x);
}

// N neighbouring elements, 2 to 16 bytes, moved by one instruction.
template <class T, int N>
struct alignas(sizeof(T) * N) Vector {
  static_assert(sizeof(T) * N <= 16 && (N & (N - 1)) == 0);
  T element[N];
  T& operator[](int i) { return element[i]; }
  const T& operator[](int i) const { return element[i]; }
};

// `from` must be aligned to the whole vector.
template <class T, int N>
Vector<T, N> load_vector(const T* from) {
  Vector<T, N> v;
  emulation::load(&v, from, sizeof(v));
  return v;
}
template <class T, int N>
void store_vector(T* to, const Vector<T, N>& v) {
  emulation::store(to, &v, sizeof(v));
}

// The block's dynamic shared memory, aligned to 16 bytes.
template <class T>
T* dynamic_shared() {
  return static_cast<T*>(emulation::dynamic_shared_memory());
}

// Of all lanes in the mask. One instruction from sm_80 on.
inline unsigned reduce_add_sync(unsigned mask, unsigned value, MEDVQA_EMULATION_SITE) {
  return emulation::reduce(emulation::Reduction::add, mask, value, site);
}
inline unsigned reduce_max_sync(unsigned mask, unsigned value, MEDVQA_EMULATION_SITE) {
  return emulation::reduce(emulation::Reduction::max, mask, value, site);
}
inline unsigned reduce_min_sync(unsigned mask, unsigned value, MEDVQA_EMULATION_SITE) {
  return emulation::reduce(emulation::Reduction::min, mask, value, site);
}

// Copies 16 bytes from global to shared memory while the thread goes on (at once on sm_75); zeros
// where not `valid`, and then nothing is read. Both addresses are multiples of 16. The bytes are
// there for this thread after a wait for its group, for others after a barrier behind that.
inline void cp_async16(void* shared, const void* global, bool valid = true) {
  emulation::async_copy(shared, valid ? global : nullptr);
}
// Closes the group of all copies begun since the last call.
inline void cp_async_commit() {
  emulation::async_commit();
}
// Waits until at most `Pending` of this thread's groups are unfinished.
template <int Pending>
void cp_async_wait() {
  emulation::async_wait(Pending);
}

// Runs `kernel` on grid x block threads with that much dynamic shared memory.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t dynamic_shared_bytes,
            Stream /*stream*/, Arguments&&... arguments) {
  static_assert(sizeof...(Parameters) == sizeof...(Arguments));
  struct Call {
    void (*kernel)(Parameters...);
    std::tuple<std::remove_cv_t<Parameters>...> parameters;
  };
  Call call{kernel, {static_cast<Parameters>(std::forward<Arguments>(arguments))...}};
  const auto thread = [](const void* c) {
    const auto* p = static_cast<const Call*>(c);
    std::apply(p->kernel, p->parameters);
  };
  emulation::run_grid({.entry = reinterpret_cast<const void*>(kernel),
                       .thread = thread,
                       .call = &call,
                       .call_bytes = sizeof(Call),
                       .grid = grid,
                       .block = block,
                       .dynamic_shared_bytes = dynamic_shared_bytes});
}

}  // namespace medvqa::cuda
