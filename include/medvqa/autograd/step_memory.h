// Memory of what comes and goes within a step (segment outputs, gradients between segments): pieces
// of the step arena that are given back in any order and handed out again.
#pragma once

#include <cstddef>
#include <map>
#include <tuple>
#include <vector>

#include "medvqa/core/arena.h"
#include "medvqa/ops/backend.h"

namespace medvqa::autograd {

// A piece is handed out again for tensors of its own shape and type only. What a pass takes from
// the arena is then a sum over shapes of how many are alive at once times their size, so it never
// grows when a micro-batch shrinks: the plan measures the largest micro-batches and all others fit.
// (Choosing among all free pieces by size takes a little less and lacks that: a smaller tensor may
// leave a piece too small for the next.)
class StepMemory {
 public:
  struct Kind {
    std::int64_t rows = 0;
    std::int64_t row_elements = 0;
    DType dtype = DType::f32;
    bool operator<(const Kind& other) const {
      return std::tie(rows, row_elements, dtype) <
             std::tie(other.rows, other.row_elements, other.dtype);
    }
  };
  struct Piece {
    Kind kind = {};
    std::size_t bytes = 0;
    std::byte* memory = nullptr;  // null where the arena only measures
    explicit operator bool() const { return bytes != 0; }
  };

  StepMemory(ops::Backend& backend, Arena& arena) : backend_(backend), arena_(arena) {}
  StepMemory(const StepMemory&) = delete;
  StepMemory& operator=(const StepMemory&) = delete;

  // A free piece of this shape, else more of the arena. Operations queued from now on may write it.
  Piece take(const Shape& shape, DType dtype);
  // `last_read`: the transfer that still reads it.
  void give_back(const Piece& piece, ops::Transfer last_read = 0);

 private:
  struct Free {
    Piece piece;
    ops::Transfer last_read = 0;
  };

  ops::Backend& backend_;
  Arena& arena_;
  std::map<Kind, std::vector<Free>> free_;
};

}  // namespace medvqa::autograd
