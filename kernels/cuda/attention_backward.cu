// The gradients of attention. Every element of dq, dk and dv is the work of one thread, which sums
// in one order: dq over keys; dk and dv over the query heads that share them, and over queries.
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/device/attention_fragments.h"
#include "kernels/cuda/device/attention_gradient_scalar.h"
#include "kernels/cuda/device/reduce.h"

namespace medvqa::cuda {

namespace {

constexpr int kDeltaThreads = 256;

// A warp a row of a head.
template <class T>
__global__ void __launch_bounds__(kDeltaThreads)
    attention_delta_kernel(BackwardArguments<T> b, int heads) {
  const std::int64_t index =
      static_cast<std::int64_t>(blockIdx.x) * (kDeltaThreads / 32) + threadIdx.x / 32;
  const std::int64_t token = index / heads, head = index % heads;
  if (token >= b.tokens) return;
  const int size = b.forward.size;
  const T* y = b.y.data + token * b.y.stride + head * size;
  const T* dy = b.dy.data + token * b.dy.stride + head * size;
  float sum = 0;
  for (int d = static_cast<int>(threadIdx.x) % 32; d < size; d += 32) {
    sum = fmaf(to_float(y[d]), to_float(dy[d]), sum);
  }
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) b.delta[head * b.tokens + token] = sum;
}

template <class T>
BackwardArguments<T> with_delta(const ops::AttentionBackward& p, const Tensor& scratch,
                                Stream stream) {
  const std::int64_t tokens = p.dy_THD.dim(0), heads = p.dy_THD.dim(1);
  const BackwardArguments<T> b{.forward = arguments_of<T>(p.forward),
                               .y = heads_of<const T>(p.forward.y_THD),
                               .dy = heads_of<const T>(p.dy_THD),
                               .delta = static_cast<float*>(scratch.data),
                               .tokens = tokens};
  if (tokens > 0) {
    launch(attention_delta_kernel<T>, blocks_for(tokens * heads, kDeltaThreads / 32), kDeltaThreads,
           0, stream, b, static_cast<int>(heads));
  }
  return b;
}

// A score becomes its probability and `dp` its gradient.
__device__ void to_gradient(float& s, float& dp, float factor, float lse, float delta, bool seen) {
  s = seen ? exp2f(fmaf(s, factor, -lse)) : 0.0f;
  dp = s * (dp - delta);
}

// 64 query rows of a head against tiles of 32 keys and values, the next of which are loaded while
// one is at work. Queries and dy pass through the same memory into registers.
template <class T, int D>
__global__ void __launch_bounds__(fragments::kThreads, fragments::kBlocksAtOnce<D>)
    attention_dq_fragment_kernel(BackwardArguments<T> b, HeadGradient<T> dq_THD) {
  using namespace fragments;
  T* tiles = dynamic_shared<T>();  // 2 x (keys, values), or queries and dy
  constexpr int kKeys = 32, kTile = kKeys * kStride<D>;
  const AttentionArguments<T>& p = b.forward;
  const Sample sample = sample_of(p, blockIdx.z);
  const int first = static_cast<int>(gridDim.x - 1 - blockIdx.x) * kBlockRows;
  if (first >= sample.q_count) return;
  const int head = static_cast<int>(blockIdx.y), group = head / p.shared;
  const int rows = lesser(kBlockRows, sample.q_count - first);
  const int begin = sample.q_begin + first;
  const auto k = rows_of(p.k, sample.k_begin, sample.k_count, group, D);
  const auto v = rows_of(p.v, sample.k_begin, sample.k_count, group, D);
  const Place at;
  const float factor = p.scale * kLog2E;
  RowsInRegisters<T, D> q, dy;
  begin_load<D, kBlockRows>(rows_of(p.q, begin, rows, head, D), tiles);
  begin_load<D, kBlockRows>(rows_of(b.dy, begin, rows, head, D), tiles + 2 * kTile);
  cp_async_commit();
  RowStatistics row[2];
  for (int i = 0; i < 2; ++i) {
    row[i] = statistics_of(b, head, begin + lesser(at.row(i), rows - 1));
  }
  cp_async_wait<0>();
  __syncthreads();
  q.read(tiles + at.first_row * kStride<D>);
  dy.read(tiles + 2 * kTile + at.first_row * kStride<D>);
  __syncthreads();
  begin_load<D, kKeys>(k, tiles);
  begin_load<D, kKeys>(v, tiles + kTile);
  cp_async_commit();
  float dq[D / 8][4] = {};
  const int keys = sample.visible(first + rows - 1);
  for (int key = 0, stage = 0; key < keys; key += kKeys, stage ^= 1) {
    const T* k_tile = tiles + stage * 2 * kTile;
    cp_async_wait<0>();
    __syncthreads();  // this stage is there, and nobody reads the other any more
    if (key + kKeys < keys) {
      T* other = tiles + (stage ^ 1) * 2 * kTile;
      begin_load<D, kKeys>(k.from(key + kKeys), other);
      begin_load<D, kKeys>(v.from(key + kKeys), other + kTile);
    }
    cp_async_commit();
    float s[kKeys / 8][4], ds[kKeys / 8][4];
    multiply_rows<D>(q, k_tile, s);
    multiply_rows<D>(dy, k_tile + kTile, ds);
    const int visible[2] = {sample.visible(first + at.row(0)) - key,
                            sample.visible(first + at.row(1)) - key};
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        to_gradient(s[n][i], ds[n][i], factor, row[i / 2].lse, row[i / 2].delta,
                    at.column(n, i % 2) < visible[i / 2]);
      }
    }
    add_product<D>(ds, k_tile, dq);
  }
  cp_async_wait<0>();
  const float scale[2] = {p.scale, p.scale};
  put_rows<D>(dq, scale, rows_of(dq_THD.to, begin, rows, head, D), dq_THD.accumulate);
}

// How the kernel for dk and dv uses the chip. Accumulators take D registers. Where there are enough
// of them beside, keys and values stay in registers too, and two stages of queries and dy fit.
template <int D>
struct KeyPlan {
  static constexpr bool kInRegisters = D <= 80;
  static constexpr int kStages = kInRegisters ? 2 : 1;
  static constexpr int kQueries = 32;
  // Rows of keys and values that stay, then stages of queries and dy.
  static constexpr int kKept = kInRegisters ? 0 : 2 * fragments::kBlockRows;
  static constexpr int kTileRows = kKept + kStages * 2 * kQueries;
  static constexpr int kBytes = fragments::tile_bytes<D>(kTileRows) +
                                kStages * kQueries * static_cast<int>(sizeof(RowStatistics));
};

// The tiles of queries that see a tile of keys, head after head.
struct QueryTiles {
  int head, query;
  int first_query, end;
  template <int kQueries>
  __device__ void advance() {
    query += kQueries;
    if (query < end) return;
    query = first_query;
    ++head;
  }
};

// One stage: queries, dy, and what their rows kept.
template <int D, class T>
__device__ void begin_stage(const BackwardArguments<T>& b, const Sample& sample,
                            const QueryTiles& at, T* tile, RowStatistics* statistics) {
  constexpr int kQueries = KeyPlan<D>::kQueries;
  const int begin = sample.q_begin + at.query, count = sample.q_count - at.query;
  using fragments::begin_load;
  begin_load<D, kQueries>(rows_of(b.forward.q, begin, count, at.head, D), tile);
  begin_load<D, kQueries>(rows_of(b.dy, begin, count, at.head, D),
                          tile + kQueries * fragments::kStride<D>);
  cp_async_commit();
  const int i = static_cast<int>(threadIdx.x);
  if (i >= kQueries) return;
  statistics[i] = i < count ? statistics_of(b, at.head, begin + i) : RowStatistics{0, 0};
}

// 64 keys of a key/value head. Scores are transposed: a row is a key, a column a query. Queries
// that are not there are zeros, and so is all they add.
template <class T, int D>
__global__ void __launch_bounds__(fragments::kThreads, 2)
    attention_dkv_fragment_kernel(BackwardArguments<T> b, HeadGradient<T> dk_SGD,
                                  HeadGradient<T> dv_SGD) {
  using namespace fragments;
  using Plan = KeyPlan<D>;
  using Rows = std::conditional_t<Plan::kInRegisters, RowsInRegisters<T, D>, RowsInShared<T, D>>;
  constexpr int kQueries = Plan::kQueries, kTile = kQueries * kStride<D>;
  T* kept = dynamic_shared<T>();
  T* stages = kept + Plan::kKept * kStride<D>;
  auto* statistics = reinterpret_cast<RowStatistics*>(kept + Plan::kTileRows * kStride<D>);
  const AttentionArguments<T>& p = b.forward;
  const Sample sample = sample_of(p, blockIdx.z);
  const int first = static_cast<int>(blockIdx.x) * kBlockRows;
  if (first >= sample.k_count) return;
  const int group = static_cast<int>(blockIdx.y), begin = sample.k_begin + first;
  const int rows = sample.k_count - first;
  const Place at;
  const float factor = p.scale * kLog2E;
  begin_load<D, kBlockRows>(rows_of(p.k, begin, rows, group, D), kept);
  begin_load<D, kBlockRows>(rows_of(p.v, begin, rows, group, D), kept + kBlockRows * kStride<D>);
  cp_async_commit();
  cp_async_wait<0>();
  __syncthreads();
  Rows k, v;
  k.read(kept + at.first_row * kStride<D>);
  v.read(kept + (kBlockRows + at.first_row) * kStride<D>);
  if (Plan::kInRegisters) __syncthreads();  // the stages take their place
  float dk[D / 8][4] = {}, dv[D / 8][4] = {};
  // No query before the tile's first key sees it.
  const int first_query = p.causal ? first : 0;
  QueryTiles tiles{group * p.shared, first_query, first_query, sample.q_count};
  const int end = first_query < sample.q_count ? tiles.head + p.shared : tiles.head;
  if (Plan::kStages == 2 && tiles.head < end) begin_stage<D>(b, sample, tiles, stages, statistics);
  for (int stage = 0; tiles.head < end; stage ^= Plan::kStages - 1) {
    const T* q_tile = stages + stage * 2 * kTile;
    const T* dy_tile = q_tile + kTile;
    const RowStatistics* row = statistics + stage * kQueries;
    const int query = tiles.query;
    if constexpr (Plan::kStages == 1) {
      __syncthreads();
      begin_stage<D>(b, sample, tiles, stages, statistics);
    }
    tiles.template advance<kQueries>();
    cp_async_wait<0>();
    __syncthreads();  // this stage is there, and nobody reads the other any more
    if (Plan::kStages == 2 && tiles.head < end) {
      const int other = stage ^ 1;
      begin_stage<D>(b, sample, tiles, stages + other * 2 * kTile, statistics + other * kQueries);
    }
    float s[kQueries / 8][4], ds[kQueries / 8][4];
    multiply_rows<D>(k, q_tile, s);
    multiply_rows<D>(v, dy_tile, ds);
#pragma unroll
    for (int n = 0; n < kQueries / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const RowStatistics of = row[at.column(n, i % 2)];
        const bool seen = first + at.row(i / 2) < sample.visible(query + at.column(n, i % 2));
        to_gradient(s[n][i], ds[n][i], factor, of.lse, of.delta, seen);
      }
    }
    add_product<D>(s, dy_tile, dv);
    add_product<D>(ds, q_tile, dk);
  }
  const float scale[2] = {p.scale, p.scale}, one[2] = {1, 1};
  if (dk_SGD.to.data != nullptr) {
    put_rows<D>(dk, scale, rows_of(dk_SGD.to, begin, rows, group, D), dk_SGD.accumulate);
  }
  if (dv_SGD.to.data != nullptr) {
    put_rows<D>(dv, one, rows_of(dv_SGD.to, begin, rows, group, D), dv_SGD.accumulate);
  }
}

template <class T, int D>
void launch_fragments(const ops::AttentionBackward& p, const BackwardArguments<T>& b,
                      Stream stream) {
  const ops::Attention& f = p.forward;
  constexpr int kRows = fragments::kBlockRows;
  if (p.dq_THD && f.q_THD.elements() > 0) {
    launch(attention_dq_fragment_kernel<T, D>, attention_grid(f, f.max_q, kRows, f.q_THD.dim(1)),
           fragments::kThreads, fragments::tile_bytes<D>(2 * kRows), stream, b,
           gradient_of<T>(p.dq_THD));
  }
  if ((p.dk_SGD || p.dv_SGD) && f.k_SGD.elements() > 0) {
    launch(attention_dkv_fragment_kernel<T, D>, attention_grid(f, f.max_k, kRows, f.k_SGD.dim(1)),
           fragments::kThreads, KeyPlan<D>::kBytes, stream, b, gradient_of<T>(p.dk_SGD),
           gradient_of<T>(p.dv_SGD));
  }
}

}  // namespace

void CudaBackend::do_attention_backward(const ops::AttentionBackward& p, const Tensor& scratch) {
  const DType type = p.dy_THD.dtype;
  const std::int64_t size = p.dy_THD.dim(2);
  if (fragments::serve(type, size, limits_.architecture)) {
    return fragments::dispatch(type, size, [&]<class T, int D>() {
      launch_fragments<T, D>(p, with_delta<T>(p, scratch, stream_), stream_);
    });
  }
  dispatch_storage(type, [&]<class T>() {
    scalar::launch_gradients(p, with_delta<T>(p, scratch, stream_), stream_);
  });
}

}  // namespace medvqa::cuda
