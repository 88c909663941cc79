#include "medvqa/autograd/attention.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <vector>

namespace medvqa::autograd {

namespace {

Tensor heads_of(const Tensor& packed_TC, const HeadBlock& block, RowRange rows,
                std::int64_t head_size) {
  return packed_TC.columns(block.begin, block.begin + block.heads * head_size)
      .rows_between(rows.begin, rows.end)
      .reshaped({rows.size(), block.heads, head_size});
}

// How the parts write a gradient, one after another: which of them find their rows written by an
// earlier part, and whether together they write every row. If some part finds only a few of its
// rows written, the parts cannot tell overwriting from adding.
struct Coverage {
  std::vector<bool> written;  // by part
  bool whole = true;
};

Coverage coverage(std::span<const AttentionPart> parts, RowRange AttentionPart::*range,
                  std::int64_t rows) {
  Coverage c;
  std::int64_t covered = 0;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const RowRange own = parts[i].*range;
    bool inside = false;
    bool touched = false;
    for (std::size_t j = 0; j < i; ++j) {
      const RowRange other = parts[j].*range;
      inside = inside || (other.begin <= own.begin && own.end <= other.end);
      touched = touched || (other.begin < own.end && own.begin < other.end);
    }
    c.written.push_back(inside);
    if (!inside) covered += own.size();
    if (touched && !inside) c.whole = false;
  }
  c.whole = c.whole && covered == rows;
  return c;
}

std::vector<AttentionPart> without_empty(std::span<const AttentionPart> parts) {
  std::vector<AttentionPart> kept;
  std::copy_if(parts.begin(), parts.end(), std::back_inserter(kept),
               [](const AttentionPart& p) { return p.q.size() > 0 && p.k.size() > 0; });
  return kept;
}

class PartwiseAttention {
 public:
  PartwiseAttention(const HeadBlock& q, const HeadBlock& k, const HeadBlock& v,
                    const AttentionShape& shape, std::span<const AttentionPart> parts)
      : q_(q),
        k_(k),
        v_(v),
        shape_(shape),
        parts_(without_empty(parts)),
        queries_(coverage(parts_, &AttentionPart::q, q.packed_TC.value.dim(0))),
        keys_(coverage(parts_, &AttentionPart::k, k.packed_TC.value.dim(0))) {}

  template <class Allocate>
  SavedAttention::Entry make_entry(Allocate allocate) const {
    const DType type = q_.packed_TC.value.dtype;
    const std::int64_t rows = q_.packed_TC.value.dim(0);
    const Tensor y = allocate(Shape{rows, q_.heads * shape_.head_size}, type);
    return {y, allocate(Shape{q_.heads * rows}, accumulator_of(type))};
  }

  void forward(Tape& t, const SavedAttention::Entry& e) const {
    if (!queries_.whole) t.backend().fill(e.y, 0);
    for (const AttentionPart& p : parts_) t.backend().attention(call(p, e));
  }

  void backward(Tape& t, const SavedAttention::Entry& e, const Tensor& dy_TC) const {
    const std::array<const HeadBlock*, 3> blocks{&q_, &k_, &v_};
    std::array<ops::GradOut, 3> whole = gradients(t);
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      const AttentionPart& p = parts_[i];
      std::array<ops::GradOut, 3> part;
      for (std::size_t j = 0; j < 3; ++j) {
        part[j] = {};
        if (!whole[j]) continue;
        const bool written = j > 0 && keys_.written[i];
        part[j] = {heads_of(whole[j].tensor, *blocks[j], j == 0 ? p.q : p.k, shape_.head_size),
                   whole[j].accumulate || written};
      }
      const ops::Attention forward = call(p, e);
      t.backend().attention_backward(
          {.forward = forward,
           .dy_THD = dy_TC.rows_between(p.q.begin, p.q.end).reshaped(forward.q_THD.shape),
           .dq_THD = part[0],
           .dk_SGD = part[1],
           .dv_SGD = part[2]});
    }
  }

 private:
  ops::Attention call(const AttentionPart& p, const SavedAttention::Entry& e) const {
    const std::int64_t size = shape_.head_size;
    const Tensor y = e.y.rows_between(p.q.begin, p.q.end);
    const Tensor lse = e.lse.rows_between(q_.heads * p.q.begin, q_.heads * p.q.end);
    return {
        .q_THD = heads_of(q_.packed_TC.value, q_, p.q, size),
        .k_SGD = heads_of(k_.packed_TC.value, k_, p.k, size),
        .v_SGD = heads_of(v_.packed_TC.value, v_, p.k, size),
        .y_THD = y.reshaped({p.q.size(), q_.heads, size}),
        .lse_HT = lse.reshaped({q_.heads, p.q.size()}),
        .cu_q_N = p.queries.cu_seqlens_N,
        .cu_k_N = p.keys.cu_seqlens_N,
        .max_q = p.queries.longest,
        .max_k = p.keys.longest,
        .causal = shape_.causal,
        .scale = shape_.scale,
    };
  }

  // One gradient a packed value, however many blocks of it take part.
  std::array<ops::GradOut, 3> gradients(Tape& t) const {
    const std::array<const HeadBlock*, 3> blocks{&q_, &k_, &v_};
    std::array<ops::GradOut, 3> whole;
    for (std::size_t i = 0; i < 3; ++i) {
      whole[i] = {};
      for (std::size_t j = 0; j < i && !whole[i]; ++j) {
        if (blocks[j]->packed_TC.id == blocks[i]->packed_TC.id) whole[i] = whole[j];
      }
      if (whole[i]) continue;
      whole[i] = t.grad(blocks[i]->packed_TC);
      if (!whole[i] || whole[i].accumulate || (queries_.whole && keys_.whole)) continue;
      t.backend().fill(whole[i].tensor, 0);
      whole[i].accumulate = true;
    }
    return whole;
  }

  HeadBlock q_, k_, v_;
  AttentionShape shape_;
  std::vector<AttentionPart> parts_;
  Coverage queries_, keys_;
};

}  // namespace

Var attention(Tape& t, const HeadBlock& q, const HeadBlock& k, const HeadBlock& v,
              const AttentionShape& shape) {
  const AttentionPart all{
      {0, q.packed_TC.value.dim(0)}, {0, k.packed_TC.value.dim(0)}, shape.queries, shape.keys};
  return attention(t, q, k, v, shape, std::span(&all, 1));
}

Var attention(Tape& t, const HeadBlock& q, const HeadBlock& k, const HeadBlock& v,
              const AttentionShape& shape, std::span<const AttentionPart> parts) {
  const PartwiseAttention operation(q, k, v, shape, parts);
  SavedAttention* saved = t.options().attention;
  const std::size_t index = t.next_attention();
  const bool known = saved != nullptr && t.replaying();
  SavedAttention::Entry e;
  if (known) {
    e = saved->entries.at(index);
  } else {
    if (saved != nullptr) {
      e = operation.make_entry(saved->allocate);
      saved->entries.push_back(e);
    } else {
      e = operation.make_entry([&t](Shape s, DType type) { return t.allocate(s, type); });
    }
    operation.forward(t, e);
  }
  const Var out = t.result(e.y, {q.packed_TC, k.packed_TC, v.packed_TC});
  t.on_backward(out, [=, &t] { operation.backward(t, e, t.grad_of(out)); });
  return out;
}

}  // namespace medvqa::autograd
