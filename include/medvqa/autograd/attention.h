// Attention over packed rows as a differentiable function. Shapes as in ops/params.h.
#pragma once

#include <span>

#include "medvqa/autograd/tape.h"

namespace medvqa::autograd {

// `heads` heads of size D that begin at column `begin` of a packed value.
struct HeadBlock {
  Var packed_TC;
  std::int64_t begin = 0;
  std::int64_t heads = 0;
};

// Where samples begin in packed rows: i32 [N + 1] in device memory, and the longest sample.
struct Segments {
  Tensor cu_seqlens_N;
  std::int64_t longest = 0;
};

struct AttentionShape {
  std::int64_t head_size = 0;
  bool causal = false;
  double scale = 1;
  Segments queries = {}, keys = {};
};
// y_TC [T, H * D]. The blocks taken from one packed value must cover it: each writes its part of
// that value's gradient.
Var attention(Tape& t, const HeadBlock& q, const HeadBlock& k, const HeadBlock& v,
              const AttentionShape& shape);

// Rows [begin, end).
struct RowRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::int64_t size() const { return end - begin; }
};
// One call of the operation: these query rows see these key rows. The segments count from the
// beginning of their range.
struct AttentionPart {
  RowRange q, k;
  Segments queries, keys;
};
// Attention with a mask that is a few rectangles, exactly and without making one: part by part.
// The parts' query rows are disjoint; a row of none gives zero. Key rows may be in several parts.
// `shape` without its segments.
Var attention(Tape& t, const HeadBlock& q, const HeadBlock& k, const HeadBlock& v,
              const AttentionShape& shape, std::span<const AttentionPart> parts);

}  // namespace medvqa::autograd
