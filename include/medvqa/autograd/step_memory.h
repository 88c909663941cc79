// Memory of what comes and goes within a step (segment outputs, gradients between segments): pieces
// of the step arena that are given back in any order and handed out again.
#pragma once

#include <cstddef>
#include <map>

#include "medvqa/core/arena.h"
#include "medvqa/ops/backend.h"

namespace medvqa::autograd {

class StepMemory {
 public:
  // Offsets into the arena: they mean the same where the arena only measures.
  struct Piece {
    std::size_t begin = 0;
    std::size_t bytes = 0;
    std::byte* memory = nullptr;
    explicit operator bool() const { return bytes != 0; }
  };

  StepMemory(ops::Backend& backend, Arena& arena) : backend_(backend), arena_(arena) {}
  StepMemory(const StepMemory&) = delete;
  StepMemory& operator=(const StepMemory&) = delete;

  // The smallest free piece that is large enough, else more of the arena. Operations queued from
  // now on may write it.
  Piece take(std::size_t bytes);
  // `last_read`: the transfer that still reads it.
  void give_back(const Piece& piece, ops::Transfer last_read = 0);

 private:
  struct Free {
    Piece piece;
    ops::Transfer last_read = 0;
  };

  ops::Backend& backend_;
  Arena& arena_;
  std::map<std::size_t, Free> free_;  // by where they begin; no two touch
};

}  // namespace medvqa::autograd
