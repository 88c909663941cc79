// The optimizer's step over all trained tensors in one launch, and the norm of all gradients in
// two. The arithmetic is that of quant/adamw8bit.h, equal to the bit.
#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/device/entries.h"
#include "kernels/cuda/device/storage.h"
#include "kernels/cuda/update_state.h"
#include "medvqa/quant/adamw8bit.h"

namespace medvqa::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kBlock = static_cast<int>(quant::kAdamWBlockSize);
// A warp has a block of the 8-bit states, and so needs no barrier for its maximum.
constexpr int kLaneElements = kBlock / 32;

struct TrainedEntry {
  float* value;
  const float* grad;
  void* m;  // u8 codes where there are maxima, f32 otherwise
  void* v;
  float* m_absmax;
  float* v_absmax;
  std::int64_t elements;
  std::int64_t first;    // blocks before it
  std::int64_t aligned;  // 1: a lane's elements can be moved as vectors
};

// A lane's share of a block: `count` of its elements exist.
struct Lane {
  std::int64_t begin = 0;
  int count = 0;
  bool vectors = false;
};

template <class T>
__device__ void load_lane(const T* from, const Lane& lane, T (&to)[kLaneElements]) {
  constexpr int kStep = sizeof(T) == 1 ? 8 : 4;
  if (lane.vectors) {
#pragma unroll
    for (int i = 0; i < kLaneElements; i += kStep) {
      const Vector<T, kStep> v = load_vector<T, kStep>(from + lane.begin + i);
#pragma unroll
      for (int k = 0; k < kStep; ++k) to[i + k] = v[k];
    }
  } else {
#pragma unroll
    for (int i = 0; i < kLaneElements; ++i) to[i] = i < lane.count ? from[lane.begin + i] : T{};
  }
}

template <class T>
__device__ void store_lane(T* to, const Lane& lane, const T (&from)[kLaneElements]) {
  constexpr int kStep = sizeof(T) == 1 ? 8 : 4;
  if (lane.vectors) {
#pragma unroll
    for (int i = 0; i < kLaneElements; i += kStep) {
      Vector<T, kStep> v;
#pragma unroll
      for (int k = 0; k < kStep; ++k) v[k] = from[i + k];
      store_vector(to + lane.begin + i, v);
    }
  } else {
#pragma unroll
    for (int i = 0; i < kLaneElements; ++i) {
      if (i < lane.count) to[lane.begin + i] = from[i];
    }
  }
}

__device__ void update_8bit(const TrainedEntry& t, const Lane& lane, std::int64_t block,
                            const quant::AdamWFactors& f, const quant::AdamWTables& tables) {
  float g[kLaneElements], p[kLaneElements], m[kLaneElements], v[kLaneElements];
  std::uint8_t m_codes[kLaneElements], v_codes[kLaneElements];
  load_lane(t.grad, lane, g);
  load_lane(t.value, lane, p);
  load_lane(static_cast<const std::uint8_t*>(t.m), lane, m_codes);
  load_lane(static_cast<const std::uint8_t*>(t.v), lane, v_codes);
  const float m_before = t.m_absmax[block], v_before = t.v_absmax[block];
  float m_largest = 0, v_largest = 0;
#pragma unroll
  for (int i = 0; i < kLaneElements; ++i) {
    const quant::Moments old = {tables.signed_map[m_codes[i]] * m_before,
                                tables.unsigned_map[v_codes[i]] * v_before};
    const quant::Moments now = quant::adamw_moments(f, g[i], old);
    p[i] = quant::adamw_parameter_8bit(f, p[i], now);
    m[i] = now.m;
    v[i] = now.v;
    if (i < lane.count) {
      m_largest = fmaxf(m_largest, fabsf(now.m));
      v_largest = fmaxf(v_largest, fabsf(now.v));
    }
  }
  m_largest = warp_max(m_largest);
  v_largest = warp_max(v_largest);
#pragma unroll
  for (int i = 0; i < kLaneElements; ++i) {
    m_codes[i] = m_largest == 0 ? std::uint8_t{0} : quant::code_m(tables, m[i], 1.0f / m_largest);
    v_codes[i] = v_largest == 0 ? std::uint8_t{0} : quant::code_v(tables, v[i], 1.0f / v_largest);
  }
  store_lane(t.value, lane, p);
  store_lane(static_cast<std::uint8_t*>(t.m), lane, m_codes);
  store_lane(static_cast<std::uint8_t*>(t.v), lane, v_codes);
  __syncwarp();  // every lane has read the old maxima
  if (threadIdx.x % 32 == 0) {
    t.m_absmax[block] = m_largest;
    t.v_absmax[block] = v_largest;
  }
}

__device__ void update_32bit(const TrainedEntry& t, const Lane& lane,
                             const quant::AdamWFactors& f) {
  float g[kLaneElements], p[kLaneElements], m[kLaneElements], v[kLaneElements];
  load_lane(t.grad, lane, g);
  load_lane(t.value, lane, p);
  load_lane(static_cast<const float*>(t.m), lane, m);
  load_lane(static_cast<const float*>(t.v), lane, v);
#pragma unroll
  for (int i = 0; i < kLaneElements; ++i) {
    const quant::Moments now = quant::adamw_moments(f, g[i], {m[i], v[i]});
    p[i] = quant::adamw_parameter_32bit(f, p[i], now);
    m[i] = now.m;
    v[i] = now.v;
  }
  store_lane(t.value, lane, p);
  store_lane(static_cast<float*>(t.m), lane, m);
  store_lane(static_cast<float*>(t.v), lane, v);
}

__global__ void __launch_bounds__(kThreads)
    adamw_kernel(const TrainedEntry* entries, int count, std::int64_t blocks,
                 quant::AdamWFactors factors, quant::AdamWTables tables) {
  const std::int64_t piece =
      static_cast<std::int64_t>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  if (piece >= blocks) return;
  const TrainedEntry t = entries[find_entry(entries, count, piece)];
  const std::int64_t block = piece - t.first;
  Lane lane;
  lane.begin = block * kBlock + threadIdx.x % 32 * kLaneElements;
  const std::int64_t left = t.elements - lane.begin;
  lane.count = static_cast<int>(left < 0 ? 0 : (left < kLaneElements ? left : kLaneElements));
  lane.vectors = t.aligned != 0 && lane.count == kLaneElements;
  if (t.m_absmax != nullptr) {
    update_8bit(t, lane, block, factors, tables);
  } else {
    update_32bit(t, lane, factors);
  }
}

// Pieces of global_norm: eight elements a thread of one block.
constexpr std::int64_t kNormPiece = std::int64_t{kThreads} * 8;

struct GradientEntry {
  const float* data;
  std::int64_t elements;
  std::int64_t first;    // pieces before it
  std::int64_t aligned;  // 1: data begins on 16 bytes
};

// Sums in f64, as on the CPU: f32 would overflow on the way to a norm that f32 can hold.
__global__ void __launch_bounds__(kThreads)
    squares_kernel(const GradientEntry* entries, int count, std::int64_t pieces, double* partial) {
  __shared__ double shared[kThreads / 32];
  double squares = 0;
  for (std::int64_t piece = blockIdx.x; piece < pieces; piece += gridDim.x) {
    const GradientEntry t = entries[find_entry(entries, count, piece)];
    const std::int64_t begin = (piece - t.first) * kNormPiece;
    const std::int64_t end = begin + kNormPiece < t.elements ? begin + kNormPiece : t.elements;
    // The four of a vector are neighbours; a thread's two vectors stand a block's width apart.
    for (std::int64_t i = begin + threadIdx.x * 4; i < end; i += kThreads * 4) {
      Vector<float, 4> v{};
      if (t.aligned != 0 && i + 4 <= end) {
        v = load_vector<float, 4>(t.data + i);
      } else {
#pragma unroll
        for (int k = 0; k < 4; ++k) v[k] = i + k < end ? t.data[i + k] : 0.0f;
      }
#pragma unroll
      for (int k = 0; k < 4; ++k) squares += static_cast<double>(v[k]) * static_cast<double>(v[k]);
    }
  }
  squares = block_sum<kThreads>(squares, shared);
  if (threadIdx.x == 0) partial[blockIdx.x] = squares;
}

__global__ void __launch_bounds__(kThreads)
    norm_kernel(const double* partial, int count, float* norm) {
  __shared__ double shared[kThreads / 32];
  double squares = 0;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) squares += partial[i];
  squares = block_sum<kThreads>(squares, shared);
  if (threadIdx.x == 0) *norm = static_cast<float>(sqrt(squares));
}

bool aligned_to(const void* p, std::uintptr_t bytes) {
  return reinterpret_cast<std::uintptr_t>(p) % bytes == 0;
}

TrainedEntry trained_entry(const ops::AdamWTensor& t, std::int64_t first) {
  const std::uintptr_t state_bytes = t.eight_bit() ? 8 : 16;
  const bool aligned = aligned_to(t.value.data, 16) && aligned_to(t.grad.data, 16) &&
                       aligned_to(t.m.data, state_bytes) && aligned_to(t.v.data, state_bytes);
  return {.value = elements_of<float>(t.value),
          .grad = elements_of<float>(t.grad),
          .m = t.m.data,
          .v = t.v.data,
          .m_absmax = t.eight_bit() ? elements_of<float>(t.m_absmax) : nullptr,
          .v_absmax = t.eight_bit() ? elements_of<float>(t.v_absmax) : nullptr,
          .elements = t.value.elements(),
          .first = first,
          .aligned = aligned ? 1 : 0};
}

}  // namespace

void CudaBackend::do_adamw(const ops::AdamW& p) {
  std::vector<TrainedEntry> entries;
  std::int64_t blocks = 0;
  for (const ops::AdamWTensor& t : p.tensors) {
    if (t.value.elements() == 0) continue;
    entries.push_back(trained_entry(t, blocks));
    blocks += (t.value.elements() + kBlock - 1) / kBlock;
  }
  if (entries.empty()) return;
  const quant::AdamWFactors factors = quant::adamw_factors({.lr = p.learning_rate,
                                                            .beta1 = p.beta1,
                                                            .beta2 = p.beta2,
                                                            .eps = p.eps,
                                                            .weight_decay = p.weight_decay,
                                                            .step = p.step,
                                                            .gradient_scale = p.grad_scale});
  const TrainedEntry* table = update_->trained.send(entries, stream_);
  launch(adamw_kernel, blocks_for(blocks, kThreads / 32), kThreads, 0, stream_, table,
         entries.size(), blocks, factors, update_->codes);
}

void CudaBackend::do_global_norm(std::span<const Tensor> tensors, const Tensor& norm_1) {
  std::vector<GradientEntry> entries;
  std::int64_t pieces = 0;
  for (const Tensor& t : tensors) {
    if (t.elements() == 0) continue;
    entries.push_back({.data = elements_of<float>(t),
                       .elements = t.elements(),
                       .first = pieces,
                       .aligned = aligned_to(t.data, 16) ? 1 : 0});
    pieces += (t.elements() + kNormPiece - 1) / kNormPiece;
  }
  const std::int64_t blocks = std::min(pieces, kNormBlocks);
  if (blocks > 0) {
    const GradientEntry* table = update_->gradients.send(entries, stream_);
    launch(squares_kernel, blocks_for(blocks, 1), kThreads, 0, stream_, table, entries.size(),
           pieces, update_->partial);
  }
  launch(norm_kernel, 1u, kThreads, 0, stream_, update_->partial, blocks,
         elements_of<float>(norm_1));
}

}  // namespace medvqa::cuda
