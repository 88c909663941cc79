#include "medvqa/autograd/step_memory.h"

#include <algorithm>
#include <iterator>

namespace medvqa::autograd {

StepMemory::Piece StepMemory::take(std::size_t bytes) {
  const std::size_t size =
      std::max<std::size_t>(1, (bytes + kArenaAlignment - 1) / kArenaAlignment) * kArenaAlignment;
  auto best = free_.end();
  for (auto f = free_.begin(); f != free_.end(); ++f) {
    if (f->second.piece.bytes < size) continue;
    if (best == free_.end() || f->second.piece.bytes < best->second.piece.bytes) best = f;
  }
  if (best == free_.end()) {
    const std::size_t begin = arena_.used();
    const Tensor t = arena_.allocate({static_cast<std::int64_t>(size)}, DType::u8);
    return {begin, size, static_cast<std::byte*>(t.data)};
  }
  Free found = best->second;
  free_.erase(best);
  backend_.await(found.last_read);
  const Piece taken{found.piece.begin, size, found.piece.memory};
  if (found.piece.bytes > size) {
    found.piece.begin += size;
    found.piece.bytes -= size;
    if (found.piece.memory != nullptr) found.piece.memory += size;
    free_.emplace(found.piece.begin, found);
  }
  return taken;
}

// Transfers end in order, so the later of two neighbours' stands for both.
void StepMemory::give_back(const Piece& piece, ops::Transfer last_read) {
  if (!piece) return;
  Free whole{piece, last_read};
  const auto join = [&](const Free& other) {
    if (other.piece.begin < whole.piece.begin) {
      whole.piece.begin = other.piece.begin;
      whole.piece.memory = other.piece.memory;
    }
    whole.piece.bytes += other.piece.bytes;
    whole.last_read = std::max(whole.last_read, other.last_read);
  };
  auto next = free_.lower_bound(piece.begin);
  if (next != free_.begin()) {
    const auto before = std::prev(next);
    if (before->second.piece.begin + before->second.piece.bytes == piece.begin) {
      join(before->second);
      free_.erase(before);
    }
  }
  if (next != free_.end() && next->first == piece.begin + piece.bytes) {
    join(next->second);
    free_.erase(next);
  }
  free_.emplace(whole.piece.begin, whole);
}

}  // namespace medvqa::autograd
