// A stack of tensors in one block of memory. With no memory behind it, it only measures.
#pragma once

#include <cstddef>

#include "medvqa/core/tensor.h"

namespace medvqa {

// Bytes every allocation is rounded up to, so that vector loads and cuBLASLt stay aligned.
inline constexpr std::size_t kArenaAlignment = 256;

// Allocations are in stack order: a Scope gives back everything made since it was opened. An arena
// that runs out throws UserError(ExitCode::memory) with the sizes; a measuring arena never does,
// hands out tensors without memory, and its peak() is the capacity a real one needs.
class Arena {
 public:
  // Measures only.
  explicit Arena(const char* name) : name_(name) {}
  // Carves tensors out of [memory, memory + capacity), owned by the caller.
  Arena(const char* name, void* memory, std::size_t capacity)
      : name_(name), memory_(static_cast<std::byte*>(memory)), capacity_(capacity) {}

  Tensor allocate(Shape shape, DType dtype);
  Tensor allocate_like(const Tensor& t) { return allocate(t.shape, t.dtype); }

  bool measuring() const { return memory_ == nullptr; }
  std::size_t used() const { return top_; }
  std::size_t peak() const { return peak_; }
  std::size_t capacity() const { return capacity_; }
  const char* name() const { return name_; }

  class Scope {
   public:
    explicit Scope(Arena& arena) : arena_(arena), top_(arena.top_) {}
    ~Scope() { arena_.top_ = top_; }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Arena& arena_;
    std::size_t top_;
  };

 private:
  const char* name_;
  std::byte* memory_ = nullptr;
  std::size_t capacity_ = 0;
  std::size_t top_ = 0;
  std::size_t peak_ = 0;
};

}  // namespace medvqa
