#include "medvqa/ops/scratch.h"

#include <algorithm>

namespace medvqa::ops {

namespace {
std::size_t aligned(std::size_t bytes) {
  return (bytes + kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment;
}
std::size_t accumulator_size(DType t) {
  return t == DType::f64 ? 8 : 4;
}
std::size_t count(std::int64_t n) {
  return static_cast<std::size_t>(n);
}

// Heads whose values are not in the accumulator type are converted once, key and value whole.
std::size_t converted_heads(const Attention& p) {
  if (accumulator_size(p.q_THD.dtype) == size_of(p.q_THD.dtype)) return 0;
  return 2 * count(p.max_k * p.q_THD.dim(2));
}
}  // namespace

std::size_t scratch_bytes(const Gemm& p, const DeviceTraits& traits) {
  if (p.a.dtype != DType::f16 || traits.gemm_in_f16) return traits.gemm_workspace;
  return aligned(count(p.a.elements()) * 4) + aligned(count(p.b.elements()) * 4) +
         aligned(count(p.c.elements()) * 4) + traits.gemm_workspace;
}

std::size_t scratch_bytes(std::span<const Gemm> group, const DeviceTraits& traits) {
  std::size_t most = 0;
  for (const Gemm& p : group) most = std::max(most, scratch_bytes(p, traits));
  return most;
}

std::size_t scratch_bytes(const Attention& p, const DeviceTraits& traits) {
  const std::int64_t head_size = p.q_THD.dim(2);
  const std::size_t scores = count(kAttentionQueryTile * p.max_k);
  const std::size_t tiles = 2 * count(kAttentionQueryTile * head_size);
  const std::size_t words = scores + tiles + converted_heads(p);
  return static_cast<std::size_t>(traits.threads) *
         aligned(words * accumulator_size(p.q_THD.dtype));
}

std::size_t scratch_bytes(const AttentionBackward& p, const DeviceTraits& traits) {
  const Attention& f = p.forward;
  const std::int64_t head_size = f.q_THD.dim(2);
  const std::size_t scores = 2 * count(kAttentionQueryTile * f.max_k);
  const std::size_t tiles = 4 * count(kAttentionQueryTile * head_size);
  const std::size_t sums = 2 * count(f.max_k * head_size);
  const std::size_t words = scores + tiles + sums + converted_heads(f);
  return static_cast<std::size_t>(traits.threads) *
         aligned(words * accumulator_size(f.q_THD.dtype));
}

std::size_t scratch_bytes(const LinearCrossEntropy& p, const DeviceTraits& traits) {
  const std::int64_t rows = std::min(p.chunk_rows, p.x_RC.dim(0));
  const std::int64_t vocabulary = p.weight_VC.dim(0);
  const DType type = p.x_RC.dtype;
  const DType sum_type = type == DType::f64 ? DType::f64 : DType::f32;
  const Tensor logits(nullptr, sum_type, {rows, vocabulary});
  const Tensor dlogits(nullptr, type, {rows, vocabulary});
  const Tensor dx(nullptr, type, {rows, p.x_RC.dim(1)});
  const Gemm forward{.a = Tensor(nullptr, type, dx.shape), .b = p.weight_VC, .c = logits};
  const Gemm backward{.a = dlogits, .b = p.weight_VC, .c = dx};
  return aligned(logits.bytes()) + (type == sum_type ? 0 : aligned(dlogits.bytes())) +
         std::max(scratch_bytes(forward, traits), scratch_bytes(backward, traits));
}

}  // namespace medvqa::ops
