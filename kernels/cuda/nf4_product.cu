// Few rows times a 4-bit weight: the weight is read once and never stored, so the work is to read
// it, out * in / 2 bytes. More than 64 rows are better off with a dequantised weight and cuBLASLt
// (to be measured on each device; Frantar et al. 2024 meet the border there).
//
// y' = W x': a warp has 16 outputs and every row of x, and of the columns each eighth piece of 128.
// A piece is eight products m16n8k16. A sum has no order, so a thread takes as "its" columns of a
// product those of the 32 neighbours it has loaded with one instruction (16 bytes of codes), and
// the same ones of x. The warps' sums meet in shared memory, in the order of warps.
#include <cstdint>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/device/nf4_blocks.h"
#include "kernels/cuda/device/rows.h"
#include "medvqa/ops/scratch.h"

namespace medvqa::cuda {

namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * 32;
constexpr int kOutputs = 16;      // of a block
constexpr int kPiece = 128;       // columns of a warp at a time
constexpr int kOwn = kPiece / 4;  // neighbours in a row that one thread loads
constexpr int kRowsOfTile = 8;
// So many floats apart that a warp's fragments fall on 32 banks.
constexpr int kStride = kOutputs + 4;

template <class T>
struct Few {
  const T* x;         // [rows, in]
  RowPointer<T> y;    // [rows, out]
  const T* bias;      // [out] or null
  RowPointer<T> add;  // [rows, out] or null
  std::int64_t rows, out, in;
};

// A thread's 32 codes of one output's piece, and the block's maximum.
struct OwnCodes {
  Vector<std::uint32_t, 4> words;
  float absmax;
};

template <bool Nested>
__device__ OwnCodes load_codes(const Nf4Blocks& w, std::int64_t out, std::int64_t in,
                               std::int64_t output, std::int64_t column) {
  OwnCodes own{};  // outputs past the end are zero
  if (output >= out || column >= in) return own;
  const std::int64_t first = output * in + column;
  own.words =
      load_vector<std::uint32_t, 4>(reinterpret_cast<const std::uint32_t*>(w.packed + first / 2));
  own.absmax = block_absmax<Nested>(w, first / w.block_size);
  return own;
}

// Elements 4 step .. 4 step + 3 as two registers of a fragment; R: what values are rounded to.
template <class T, class R>
__device__ void unpack(const float* code, const OwnCodes& own, int step, std::uint32_t& low,
                       std::uint32_t& high) {
  float value[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const unsigned at = nf4_code_at(own.words[step / 2], step % 2 * 4 + i);
    value[i] = to_float(from_float<R>(code[at] * own.absmax));
  }
  low = pack_pair<T>(value[0], value[1]);
  high = pack_pair<T>(value[2], value[3]);
}

// c += W x' for this warp's pieces of the columns.
template <class T, class R, bool Nested, int RowTiles>
__device__ void multiply_pieces(const Nf4Blocks& w, const Few<T>& p, const float* code,
                                float (&c)[RowTiles][4]) {
  const int lane = static_cast<int>(threadIdx.x % 32), g = lane / 4, t = lane % 4;
  const std::int64_t output = static_cast<std::int64_t>(blockIdx.x) * kOutputs + g;
  std::int64_t column = static_cast<std::int64_t>(threadIdx.x / 32) * kPiece + t * kOwn;
  OwnCodes upper = load_codes<Nested>(w, p.out, p.in, output, column);
  OwnCodes lower = load_codes<Nested>(w, p.out, p.in, output + 8, column);
  for (; column < p.in; column += kWarps * kPiece) {
    // Those of the next piece are on their way while this one is multiplied.
    const std::int64_t next = column + kWarps * kPiece;
    const OwnCodes next_upper = load_codes<Nested>(w, p.out, p.in, output, next);
    const OwnCodes next_lower = load_codes<Nested>(w, p.out, p.in, output + 8, next);
#pragma unroll
    for (int step = 0; step < kOwn / 4; ++step) {
      std::uint32_t a[4];
      unpack<T, R>(code, upper, step, a[0], a[2]);
      unpack<T, R>(code, lower, step, a[1], a[3]);
#pragma unroll
      for (int tile = 0; tile < RowTiles; ++tile) {
        const std::int64_t row = tile * kRowsOfTile + g;
        Vector<std::uint32_t, 2> x{};
        if (row < p.rows) {
          x = load_vector<std::uint32_t, 2>(
              reinterpret_cast<const std::uint32_t*>(p.x + row * p.in + column + step * 4));
        }
        const std::uint32_t b[2] = {x[0], x[1]};
        mma_m16n8k16<T>(c[tile], a, b);
      }
    }
    upper = next_upper;
    lower = next_lower;
  }
}

template <class T, class R, bool Nested, int RowTiles>
__global__ void __launch_bounds__(kThreads) few_rows_kernel(Nf4Blocks w, Few<T> p) {
  __shared__ float code[16];
  __shared__ float sums[kWarps][RowTiles * kRowsOfTile][kStride];
  if (threadIdx.x < 16) code[threadIdx.x] = w.code[threadIdx.x];
  __syncthreads();
  float c[RowTiles][4] = {};
  multiply_pieces<T, R, Nested, RowTiles>(w, p, code, c);
  const int lane = static_cast<int>(threadIdx.x % 32), g = lane / 4, t = lane % 4;
#pragma unroll
  for (int tile = 0; tile < RowTiles; ++tile) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      sums[threadIdx.x / 32][tile * kRowsOfTile + 2 * t + i % 2][g + i / 2 * 8] = c[tile][i];
    }
  }
  __syncthreads();
  for (int e = static_cast<int>(threadIdx.x); e < RowTiles * kRowsOfTile * kOutputs;
       e += kThreads) {
    const int row = e / kOutputs;
    const std::int64_t output = static_cast<std::int64_t>(blockIdx.x) * kOutputs + e % kOutputs;
    if (row >= p.rows || output >= p.out) continue;
    float sum = 0;
    for (int warp = 0; warp < kWarps; ++warp) sum += sums[warp][row][e % kOutputs];
    if (p.bias != nullptr) sum += to_float(p.bias[output]);
    if (p.add.data != nullptr) sum += to_float(p.add[row][output]);
    p.y[row][output] = from_float<T>(sum);
  }
}

template <class T, class R, bool Nested>
auto kernel_for(std::int64_t rows) {
  if (rows <= 8) return few_rows_kernel<T, R, Nested, 1>;
  if (rows <= 16) return few_rows_kernel<T, R, Nested, 2>;
  if (rows <= 32) return few_rows_kernel<T, R, Nested, 4>;
  return few_rows_kernel<T, R, Nested, 8>;
}

template <class T>
void launch_few_rows(const ops::Nf4Product& p, Stream stream) {
  const Few<T> few{.x = elements_of<T>(p.x_MI),
                   .y = row_pointer<T>(p.y_MO),
                   .bias = p.bias_O ? elements_of<T>(p.bias_O) : nullptr,
                   .add = row_pointer<T>(p.residual_MO),
                   .rows = p.x_MI.dim(0),
                   .out = p.weight.out,
                   .in = p.weight.in};
  dispatch_storage(p.weight.rounded_to, [&]<class R>() {
    const auto kernel =
        p.weight.nested() ? kernel_for<T, R, true>(few.rows) : kernel_for<T, R, false>(few.rows);
    launch(kernel, blocks_for(few.out, kOutputs), kThreads, 0, stream, nf4_blocks(p.weight), few);
  });
}

}  // namespace

void CudaBackend::do_nf4_product(const ops::Nf4Product& p, const Tensor& scratch) {
  if (!ops::fused(p, traits_)) return compose_nf4_product(p, scratch);
  if (p.y_MO.elements() == 0) return;
  if (p.x_MI.dtype == DType::bf16) return launch_few_rows<bf16>(p, stream_);
  launch_few_rows<f16>(p, stream_);
}

}  // namespace medvqa::cuda
