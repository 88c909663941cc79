#include <cmath>
#include <cstdint>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/device/rows.h"
#include "medvqa/core/philox.h"

namespace medvqa::cuda {

namespace {

constexpr int kThreads = 256;

// Elements of a thread: what it can move at once, and whole draws of four words.
template <class T>
constexpr int kDrawn = kVectorElements<T>;

// N: elements moved at a time, all of a thread's or one.
template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    dropout_kernel(const T* x, std::int64_t n, std::uint32_t threshold, float scale,
                   std::uint64_t seed, std::uint64_t stream, T* y, bool accumulate) {
  static_assert(kDrawn<T> % 4 == 0);
  const std::int64_t thread = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const std::int64_t begin = thread * kDrawn<T>;
  if (begin >= n) return;
  float kept[kDrawn<T>];
#pragma unroll
  for (int i = 0; i < kDrawn<T>; i += 4) {
    const auto words = philox4x32(seed, stream, static_cast<std::uint64_t>((begin + i) / 4));
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      kept[i + k] = words[static_cast<std::size_t>(k)] >= threshold ? scale : 0.0f;
    }
  }
#pragma unroll
  for (int i = 0; i < kDrawn<T>; i += N) {
    if (begin + i >= n) break;
    const Vector<T, N> v = load_vector<T, N>(x + begin + i);
    float out[N];
#pragma unroll
    for (int k = 0; k < N; ++k) out[k] = kept[i + k] != 0 ? to_float(v[k]) * kept[i + k] : 0.0f;
    put_vector(y + begin + i, out, accumulate);
  }
}

}  // namespace

void CudaBackend::do_dropout(const ops::Dropout& p) {
  const std::int64_t n = p.x_TC.elements();
  if (n == 0) return;
  const auto threshold = static_cast<std::uint32_t>(std::ldexp(p.p, 32));
  const auto scale = static_cast<float>(1 / (1 - p.p));
  const Tensor& y = p.y_TC.tensor;
  dispatch_storage(p.x_TC.dtype, [&]<class T>() {
    dispatch_vectors<T>(rows_take_vectors<T>(1, n, {&p.x_TC, &y}), [&]<int N>() {
      launch(dropout_kernel<T, N>, blocks_for(n, kThreads * kDrawn<T>), kThreads, 0, stream_,
             elements_of<T>(p.x_TC), n, threshold, scale, p.seed, p.stream, elements_of<T>(y),
             p.y_TC.accumulate);
    });
  });
}

}  // namespace medvqa::cuda
