// Between our packed samples and a library's: offsets and lengths, and lse without its padding.
#include "kernels/cuda/library_attention.h"

#include "kernels/cuda/device/storage.h"
#include "machine.h"
#include "medvqa/ops/scratch.h"

namespace medvqa::cuda {

namespace {

constexpr int kThreads = 128;

struct RowStrides {
  std::int64_t q, k, v, y;
};

// A thread a sample, and one for the end.
__global__ void __launch_bounds__(kThreads)
    library_operands_kernel(const std::int32_t* cu, int count, RowStrides strides,
                            LibraryOperands o) {
  const int i = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  if (i > o.samples) return;
  const std::int64_t row = cu[i < count ? i : count];
  o.q_offsets[i] = static_cast<std::int32_t>(row * strides.q);
  o.k_offsets[i] = static_cast<std::int32_t>(row * strides.k);
  o.v_offsets[i] = static_cast<std::int32_t>(row * strides.v);
  o.y_offsets[i] = static_cast<std::int32_t>(row * strides.y);
  if (i < o.samples) o.lengths[i] = i < count ? cu[i + 1] - cu[i] : 0;
}

// Rows of a sample x heads x samples.
__global__ void __launch_bounds__(kThreads)
    library_lse_kernel(const std::int32_t* cu, const float* from, std::int64_t length, float* lse,
                       std::int64_t lse_stride) {
  const std::int64_t head = blockIdx.y, heads = gridDim.y, sample = blockIdx.z;
  const int i = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  const int begin = cu[sample];
  if (i >= cu[sample + 1] - begin) return;
  lse[head * lse_stride + begin + i] = from[(sample * heads + head) * length + i];
}

}  // namespace

LibraryOperands library_operands(const ops::Attention& p, const Tensor& scratch) {
  const ops::LibraryAttentionScratch s = ops::library_attention_scratch(p);
  auto* const bytes = static_cast<std::byte*>(scratch.data);
  auto* const integers = reinterpret_cast<std::int32_t*>(bytes);
  const std::int64_t offsets = s.samples + 1;
  return {.samples = s.samples,
          .length = s.length,
          .q_offsets = integers,
          .k_offsets = integers + offsets,
          .v_offsets = integers + 2 * offsets,
          .y_offsets = integers + 3 * offsets,
          .lengths = integers + 4 * offsets,
          .lse = reinterpret_cast<float*>(bytes + s.lse_at),
          .workspace = bytes + s.workspace_at};
}

void write_library_operands(const ops::Attention& p, const LibraryOperands& o, Stream stream) {
  const RowStrides strides{p.q_THD.row_stride, p.k_SGD.row_stride, p.v_SGD.row_stride,
                           p.y_THD.row_stride};
  launch(library_operands_kernel, blocks_for(o.samples + 1, kThreads), kThreads, 0, stream,
         elements_of<std::int32_t>(p.cu_q_N), static_cast<int>(p.cu_q_N.dim(0) - 1), strides, o);
}

void read_library_lse(const ops::Attention& p, const LibraryOperands& o, Stream stream) {
  const dim3 grid(blocks_for(p.max_q, kThreads), static_cast<unsigned>(p.q_THD.dim(1)),
                  static_cast<unsigned>(p.cu_q_N.dim(0) - 1));
  launch(library_lse_kernel, grid, kThreads, 0, stream, elements_of<std::int32_t>(p.cu_q_N), o.lse,
         o.length, elements_of<float>(p.lse_HT), p.lse_HT.row_stride);
}

}  // namespace medvqa::cuda
