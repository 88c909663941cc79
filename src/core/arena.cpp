#include "medvqa/core/arena.h"

#include <fmt/format.h>

#include <algorithm>

namespace medvqa {

Tensor Arena::allocate(Shape shape, DType dtype) {
  Tensor t(nullptr, dtype, shape);
  const std::size_t at = top_;
  const std::size_t bytes = (t.bytes() + kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment;
  if (memory_ != nullptr) {
    if (bytes > capacity_ - at) {
      throw UserError(ExitCode::memory,
                      fmt::format("the {} memory is full: {} bytes wanted, {} of {} in use; lower "
                                  "train.batch_size or data.image.max_pixels",
                                  name_, bytes, at, capacity_));
    }
    t.data = memory_ + at;
  }
  top_ = at + bytes;
  peak_ = std::max(peak_, top_);
  return t;
}

}  // namespace medvqa
