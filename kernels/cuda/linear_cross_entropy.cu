#include <cfloat>
#include <climits>
#include <cmath>
#include <cstdint>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/device/reduce.h"
#include "kernels/cuda/device/rows.h"

namespace medvqa::cuda {

namespace {

// A block has one row: few rows, each of a vocabulary.
constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / 32;

// The first of the largest logits.
struct Largest {
  float value;
  int index;
};

__device__ Largest first_largest(const Largest& a, const Largest& b) {
  const bool b_wins = b.value > a.value || (b.value == a.value && b.index < a.index);
  return b_wins ? b : a;
}

__device__ Largest warp_largest(Largest mine) {
  for (int distance = 16; distance > 0; distance /= 2) {
    const Largest other{__shfl_xor_sync(kAllLanes, mine.value, distance),
                        __shfl_xor_sync(kAllLanes, mine.index, distance)};
    mine = first_largest(mine, other);
  }
  return mine;
}

// Every thread gets that of the block; `partial` may be used again after the call.
__device__ Largest block_largest(Largest mine, Largest* partial) {
  static_assert(kWarps == 32);
  mine = warp_largest(mine);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = mine;
  __syncthreads();
  const Largest all = warp_largest(partial[threadIdx.x % 32]);
  __syncthreads();
  return all;
}

template <int N>
__device__ Vector<float, N> logits_at(const float* z, int vector) {
  return load_vector<float, N>(z + static_cast<std::int64_t>(vector) * N);
}

// This thread's largest logit, and the sum of exp(z - it): the sum is scaled down when a larger
// logit comes, so that the row is read once.
template <int N>
__device__ float exponentials(const float* z, int vectors, Largest& top) {
  float sum = 0;
  for (int vector = static_cast<int>(threadIdx.x); vector < vectors; vector += kThreads) {
    const Vector<float, N> v = logits_at<N>(z, vector);
    const float before = top.value;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      if (v[i] > top.value) top = {v[i], vector * N + i};
    }
    if (top.value > before) sum *= expf(before - top.value);
#pragma unroll
    for (int i = 0; i < N; ++i) sum += expf(v[i] - top.value);
  }
  return sum;
}

// dz null: nobody needs a gradient. It may be z.
template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    loss_kernel(const float* z_RV, int vocabulary, const std::int32_t* labels_R, float loss_scale,
                float* nll_R, std::int32_t* correct_R, T* dz_RV) {
  __shared__ Largest largest[kWarps];
  __shared__ float partial[kWarps];
  const std::int64_t row = blockIdx.x;
  const float* z = z_RV + row * vocabulary;
  const int vectors = vocabulary / N;
  const int label = labels_R[row];
  const float of_label = z[label];
  Largest mine{-FLT_MAX, INT_MAX};
  const float my_sum = exponentials<N>(z, vectors, mine);
  const Largest top = block_largest(mine, largest);
  const float sum = block_sum<kThreads>(my_sum * expf(mine.value - top.value), partial);
  if (threadIdx.x == 0) {
    nll_R[row] = logf(sum) - (of_label - top.value);
    correct_R[row] = top.index == label ? 1 : 0;
  }
  if (dz_RV == nullptr) return;
  const float factor = loss_scale / sum;
  T* dz = dz_RV + row * vocabulary;
  for (int vector = static_cast<int>(threadIdx.x); vector < vectors; vector += kThreads) {
    const Vector<float, N> v = logits_at<N>(z, vector);
    Vector<T, N> d;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float softmax = expf(v[i] - top.value) * factor;
      d[i] = from_float<T>(vector * N + i == label ? softmax - loss_scale : softmax);
    }
    store_vector(dz + static_cast<std::int64_t>(vector) * N, d);
  }
}

// z_RV becomes the losses of its rows and, in dz_RV, their gradient; dz_RV may be z_RV or absent.
struct ChunkLoss {
  Tensor z_RV, dz_RV, labels_R, nll_R, correct_R;
  float loss_scale = 0;
};

template <class T>
void launch_loss(const ChunkLoss& p, Stream stream) {
  const std::int64_t rows = p.z_RV.dim(0), vocabulary = p.z_RV.dim(1);
  MEDVQA_CHECK(vocabulary <= INT32_MAX - kThreads * 4, "a row of logits is too long");
  const auto run = [&](auto kernel) {
    launch(kernel, blocks_for(rows, 1), kThreads, 0, stream, elements_of<float>(p.z_RV), vocabulary,
           elements_of<std::int32_t>(p.labels_R), p.loss_scale, elements_of<float>(p.nll_R),
           elements_of<std::int32_t>(p.correct_R), p.dz_RV ? elements_of<T>(p.dz_RV) : nullptr);
  };
  // Rows of four logits are 16 bytes; of four gradients 8 or 16.
  const bool vectors = rows_take_vectors<float>(rows, vocabulary, {&p.z_RV}) &&
                       rows_take_vectors<float>(1, vocabulary, {&p.dz_RV});
  if (vectors) {
    run(loss_kernel<T, 4>);
  } else {
    run(loss_kernel<T, 1>);
  }
}

}  // namespace

void CudaBackend::do_linear_cross_entropy(const ops::LinearCrossEntropy& p, const Tensor& scratch) {
  const std::int64_t rows = p.x_RC.dim(0);
  const std::int64_t vocabulary = p.weight_VC.dim(0);
  const std::int64_t chunk = std::min(p.chunk_rows, rows);
  Arena arena("chunk", scratch.data, scratch.bytes());
  for (std::int64_t begin = 0; begin < rows; begin += chunk) {
    const std::int64_t end = std::min(rows, begin + chunk);
    Arena::Scope scope(arena);
    const Shape shape{end - begin, vocabulary};
    const Tensor z = arena.allocate(shape, DType::f32);
    const Tensor dz = p.x_RC.dtype == DType::f32 ? z : arena.allocate(shape, p.x_RC.dtype);
    const std::size_t rest = arena.capacity() - arena.used();
    const Tensor products = arena.allocate({static_cast<std::int64_t>(rest)}, DType::u8);
    const Tensor x = p.x_RC.rows_between(begin, end);
    do_gemm({.a = x, .b = p.weight_VC, .transpose_b = ops::Transpose::yes, .c = z}, products);
    if (p.logits_RV) do_copy(z, p.logits_RV.rows_between(begin, end));
    const ChunkLoss loss{.z_RV = z,
                         .dz_RV = p.dx_RC || p.dweight_VC ? dz : Tensor{},
                         .labels_R = p.labels_R.rows_between(begin, end),
                         .nll_R = p.nll_R.rows_between(begin, end),
                         .correct_R = p.correct_R.rows_between(begin, end),
                         .loss_scale = static_cast<float>(p.loss_scale)};
    dispatch_storage(p.x_RC.dtype, [&]<class T>() { launch_loss<T>(loss, stream_); });
    if (p.dx_RC) {
      do_gemm({.a = dz,
               .b = p.weight_VC,
               .c = p.dx_RC.tensor.rows_between(begin, end),
               .accumulate = p.dx_RC.accumulate},
              products);
    }
    if (p.dweight_VC) {
      do_gemm({.a = dz,
               .transpose_a = ops::Transpose::yes,
               .b = x,
               .c = p.dweight_VC.tensor,
               .accumulate = p.dweight_VC.accumulate || begin > 0},
              products);
    }
  }
}

}  // namespace medvqa::cuda
