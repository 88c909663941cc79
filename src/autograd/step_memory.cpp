#include "medvqa/autograd/step_memory.h"

#include <algorithm>

namespace medvqa::autograd {

StepMemory::Piece StepMemory::take(const Shape& shape, DType dtype) {
  const Tensor t(nullptr, dtype, shape);
  const Kind kind{t.dim(0), t.row_elements(), dtype};
  std::vector<Free>& free = free_[kind];
  if (!free.empty()) {
    // Whose reader ends first.
    const auto first = std::min_element(free.begin(), free.end(), [](const Free& a, const Free& b) {
      return a.last_read < b.last_read;
    });
    const Free found = *first;
    free.erase(first);
    backend_.await(found.last_read);
    return found.piece;
  }
  const std::size_t begin = arena_.used();
  const Tensor made = arena_.allocate(shape, dtype);
  return {kind, std::max<std::size_t>(1, arena_.used() - begin),
          static_cast<std::byte*>(made.data)};
}

void StepMemory::give_back(const Piece& piece, ops::Transfer last_read) {
  if (piece) free_[piece.kind].push_back({piece, last_read});
}

}  // namespace medvqa::autograd
