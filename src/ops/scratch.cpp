#include "medvqa/ops/scratch.h"

#include <algorithm>
#include <bit>

namespace medvqa::ops {

namespace {
std::size_t aligned(std::size_t bytes) {
  return (bytes + kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment;
}
std::size_t count(std::int64_t n) {
  return static_cast<std::size_t>(n);
}

// Sizes of one thread's attention, in bytes.
struct HeadBytes {
  std::size_t scores, scores_operand, tile, tile_operand, head, head_operand, queries,
      queries_operand, deltas;
};

// Scores that become probabilities in place; q; y; k and v packed.
std::size_t pair_bytes(const Attention& p) {
  const std::int64_t keys = padded(p.max_k);
  const std::int64_t size = p.q_THD.dim(2);
  return aligned(count(kPairQueryTile * std::min(keys, kPairKeyBlock)) * 4) +
         aligned(count(padded(kPairQueryTile) * size) * 2) +
         aligned(count(kPairQueryTile * size) * 4) + 2 * aligned(count(keys * size) * 2);
}

// Probabilities and twice their gradients; strips of scores and theirs; q, dy, as they are and
// packed; dq; lse and deltas; dk, dv; k packed both ways, v.
std::size_t pair_bytes(const AttentionBackward& p) {
  const Attention& forward = p.forward;
  const std::int64_t queries = padded(forward.max_q);
  const std::int64_t keys = padded(forward.max_k);
  const std::int64_t size = forward.q_THD.dim(2);
  return 3 * aligned(count(kPairQueryTile * std::min(keys, kPairKeyBlock)) * 2) +
         2 * aligned(count(kPairStripRows * kPairStripKeys) * 4) +
         4 * aligned(count(queries * size) * 2) + aligned(count(queries * size) * 4) +
         2 * aligned(count(queries) * 4) + 2 * aligned(count(keys * size) * 4) +
         3 * aligned(count(keys * size) * 2);
}

HeadBytes head_bytes(const Attention& p) {
  const std::size_t sum = size_of(accumulator_of(p.q_THD.dtype));
  // f16 is multiplied as f32; scores are operands themselves where they have that type.
  const std::size_t operand = p.q_THD.dtype == DType::bf16 ? 2 : sum;
  const std::int64_t keys = padded(p.max_k);
  const std::int64_t size = p.q_THD.dim(2);
  const std::size_t scores = count(kAttentionQueryTile * std::min(keys, kAttentionKeyBlock));
  return {.scores = aligned(scores * sum),
          .scores_operand = operand == sum ? 0 : aligned(scores * operand),
          .tile = aligned(count(kAttentionQueryTile * size) * sum),
          .tile_operand = aligned(count(kAttentionQueryTile * size) * operand),
          .head = aligned(count(keys * size) * sum),
          .head_operand = aligned(count(keys * size) * operand),
          .queries = aligned(count(padded(p.max_q) * size) * sum),
          .queries_operand = aligned(count(padded(p.max_q) * size) * operand),
          .deltas = aligned(count(padded(p.max_q)) * sum)};
}
}  // namespace

bool has_bf16(const DeviceTraits& traits) {
  return traits.compute != DType::f16;
}

std::size_t scratch_bytes(const Gemm& p, const DeviceTraits& traits) {
  if (p.a.dtype != DType::f16 || traits.gemm_in_f16) return traits.gemm_workspace;
  return aligned(count(p.a.elements()) * 4) + aligned(count(p.b.elements()) * 4) +
         aligned(count(p.c.elements()) * 4) + traits.gemm_workspace;
}

bool fused(const Nf4Product& p, const DeviceTraits& traits) {
  constexpr std::int64_t kColumns = 128, kBlock = 32;
  const DType type = p.x_MI.dtype;
  const bool multiplied = type == DType::f16 || (type == DType::bf16 && has_bf16(traits));
  return p.x_MI.dim(0) <= traits.nf4_product_rows && multiplied && p.weight.in % kColumns == 0 &&
         p.weight.block_size % kBlock == 0;
}

std::size_t scratch_bytes(const Nf4Product& p, const DeviceTraits& traits) {
  if (fused(p, traits)) return 0;
  const Tensor w(nullptr, p.x_MI.dtype, {p.weight.out, p.weight.in});
  return aligned(w.bytes()) + scratch_bytes(Gemm{.a = p.x_MI, .b = w, .c = p.y_MO}, traits);
}

bool attention_in_pairs(const Attention& p, const DeviceTraits& traits) {
  return traits.bf16_pairs && p.q_THD.dtype == DType::bf16 && p.q_THD.dim(2) % 16 == 0;
}

void add_cuda_kernels(DeviceTraits& traits) {
  traits.attention_on_chip = true;
  traits.own_memory = true;
  traits.nf4_product_rows = 64;
}

LibraryAttentionScratch library_attention_scratch(const Attention& p) {
  constexpr std::int64_t kShortest = 128;  // shorter ones gain nothing by plans of their own
  constexpr std::size_t kMostLse = std::size_t{32} << 20;
  const DType type = p.q_THD.dtype;
  const std::int64_t heads = p.q_THD.dim(1), size = p.q_THD.dim(2);
  const bool samples_alike = p.q_THD.dim(0) == p.k_SGD.dim(0) && p.max_q == p.max_k;
  if ((type != DType::bf16 && type != DType::f16) || !samples_alike) return {};
  if (size % 8 != 0 || size > 128 || p.q_THD.elements() == 0) return {};
  LibraryAttentionScratch s;
  const auto rounded = [](std::int64_t n) {
    return static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(n)));
  };
  s.samples = rounded(p.cu_q_N.dim(0) - 1);
  s.length = rounded(std::max(p.max_q, kShortest));
  const std::size_t lse = aligned(count(s.samples * heads * s.length) * sizeof(float));
  if (lse > kMostLse) return {};
  s.lse_at = aligned(count(5 * s.samples + 4) * sizeof(std::int32_t));
  s.workspace_at = s.lse_at + lse;
  s.bytes = s.workspace_at + kLibraryAttentionWorkspace;
  return s;
}

// Scores; q; y; k transposed, v.
std::size_t scratch_bytes(const Attention& p, const DeviceTraits& traits) {
  if (traits.attention_on_chip) return library_attention_scratch(p).bytes;
  if (attention_in_pairs(p, traits)) return count(traits.threads) * pair_bytes(p);
  const HeadBytes h = head_bytes(p);
  return count(traits.threads) *
         (h.scores + h.scores_operand + h.tile_operand + h.tile + 2 * h.head_operand);
}

// Probabilities and their gradients; q, dy; dq and its deltas; dk, dv; k transposed and not, v
// transposed.
std::size_t scratch_bytes(const AttentionBackward& p, const DeviceTraits& traits) {
  if (traits.attention_on_chip) return aligned(count(p.forward.lse_HT.elements()) * sizeof(float));
  if (attention_in_pairs(p.forward, traits)) return count(traits.threads) * pair_bytes(p);
  const HeadBytes h = head_bytes(p.forward);
  return count(traits.threads) * (2 * (h.scores + h.scores_operand) + 2 * h.queries_operand +
                                  h.queries + h.deltas + 2 * h.head + 3 * h.head_operand);
}

std::size_t scratch_bytes(const LinearCrossEntropy& p, const DeviceTraits& traits) {
  const std::int64_t rows = std::min(p.chunk_rows, p.x_RC.dim(0));
  const std::int64_t vocabulary = p.weight_VC.dim(0);
  const DType type = p.x_RC.dtype;
  const DType sum_type = accumulator_of(type);
  const Tensor logits(nullptr, sum_type, {rows, vocabulary});
  const Tensor dlogits(nullptr, type, {rows, vocabulary});
  const Tensor dx(nullptr, type, {rows, p.x_RC.dim(1)});
  const Gemm forward{.a = Tensor(nullptr, type, dx.shape), .b = p.weight_VC, .c = logits};
  const Gemm backward{.a = dlogits, .b = p.weight_VC, .c = dx};
  std::size_t products = std::max(scratch_bytes(forward, traits), scratch_bytes(backward, traits));
  if (p.dweight_VC) {
    const Gemm weight{
        .a = dlogits, .transpose_a = Transpose::yes, .b = dx, .c = p.dweight_VC.tensor};
    products = std::max(products, scratch_bytes(weight, traits));
  }
  return aligned(logits.bytes()) + (type == sum_type ? 0 : aligned(dlogits.bytes())) + products;
}

}  // namespace medvqa::ops
