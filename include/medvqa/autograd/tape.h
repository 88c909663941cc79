// Reverse-mode differentiation for the life of one transformer block. Forward runs and is
// remembered, backward replays it newest first, and the arena scope around both gives all memory
// back. Program order is the topological order, so there is no sorting and no reference counting.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <span>
#include <vector>

#include "medvqa/core/arena.h"
#include "medvqa/ops/backend.h"

namespace medvqa::autograd {

// A handle to a value on the tape; copying it copies the handle.
struct Var {
  Tensor value;
  int id = -1;
};

// Attention outputs and their log-sum-exp kept from the first forward for the replay.
struct SavedAttention {
  struct Entry {
    Tensor y, lse;
  };
  std::vector<Entry> entries;
  // Where they lie: memory that outlives the block's.
  std::function<Tensor(Shape, DType)> allocate;
};

struct TapeOptions {
  enum class Mode : std::uint8_t {
    forward,  // remembers nothing
    record,   // remembers; the block's value is wanted
    replay,   // remembers; the block's value is known, so its last product may be left out
  };
  Mode mode = Mode::forward;
  // No forward here is ever run again: it may take ways whose rounding is their own.
  bool inference = false;
  // Dequantised weights stay from the forward for the backward, instead of being made twice.
  bool keep_weights = false;
  // Where attention saves to (forward) or takes from (replay); null: attention runs again.
  SavedAttention* attention = nullptr;
  // Key of the counter-based random numbers: one for every micro-batch of a run.
  std::uint64_t random_key = 0;
  bool dropout = false;
};

class Tape {
 public:
  // Values and gradients live in `block`; temporaries of single operations in `scratch`, so that
  // the scope of a temporary never swallows a gradient made inside it.
  Tape(ops::Backend& backend, Arena& block, Arena& scratch, TapeOptions options)
      : backend_(backend), block_(block), scratch_(scratch), options_(options) {}
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  // A value from outside. With a gradient tensor, backward() adds to it or overwrites it.
  Var input(const Tensor& value, ops::GradOut grad = {});
  // A value from outside whose gradient has no place yet: attach_gradient() gives it one before
  // backward() runs, or, in forward mode, only needs_grad() is carried along.
  Var input_needing_grad(const Tensor& value);
  void attach_gradient(const Var& input, ops::GradOut grad);

  // Runs every remembered backward, newest first, from d loss / d y = seed.
  void backward(const Var& y, const Tensor& seed);

  // --- for the functions built on the tape ----------------------------------------------------
  ops::Backend& backend() { return backend_; }
  Arena& block() { return block_; }
  Arena& scratch() { return scratch_; }
  const TapeOptions& options() const { return options_; }
  bool recording() const { return options_.mode != TapeOptions::Mode::forward; }
  bool replaying() const { return options_.mode == TapeOptions::Mode::replay; }
  std::size_t next_attention() { return attentions_++; }

  Tensor allocate(Shape shape, DType dtype) { return block_.allocate(shape, dtype); }
  Var result(const Tensor& value, std::span<const Var> inputs,
             bool has_trainable_parameter = false);
  Var result(const Tensor& value, std::initializer_list<Var> inputs,
             bool has_trainable_parameter = false) {
    return result(value, std::span(inputs.begin(), inputs.size()), has_trainable_parameter);
  }
  bool needs_grad(const Var& v) const { return node(v).needs_grad; }
  // Remembers `f` if the backward will need it.
  template <class F>
  void on_backward(const Var& y, F f) {
    if (recording() && needs_grad(y)) steps_.emplace_back(std::move(f));
  }
  // d loss / d y in the shape of y's value; only inside a backward step.
  Tensor grad_of(const Var& y) const;
  // Where to put d loss / d v, overwriting the first time and adding afterwards. Empty if nobody
  // needs it.
  ops::GradOut grad(const Var& v);
  // The same value in another shape; both handles share one gradient.
  Var view(const Var& v, Shape shape) const { return {v.value.reshaped(shape), v.id}; }

 private:
  struct Node {
    bool needs_grad = false;
    bool written = false;
    Tensor grad;
  };
  const Node& node(const Var& v) const { return nodes_.at(static_cast<std::size_t>(v.id)); }
  Var make(const Tensor& value, const Node& node);

  ops::Backend& backend_;
  Arena& block_;
  Arena& scratch_;
  TapeOptions options_;
  std::vector<Node> nodes_;
  std::vector<std::function<void()>> steps_;
  std::size_t attentions_ = 0;
};

}  // namespace medvqa::autograd
