#include "kernels/cuda/library_attention.h"

namespace medvqa::cuda {

struct LibraryAttention::State {};

LibraryAttention::LibraryAttention(const DeviceLimits&, Stream) {}
LibraryAttention::~LibraryAttention() = default;

std::string LibraryAttention::version() {
  return {};
}

bool LibraryAttention::forward(const ops::Attention&, const Tensor&) {
  return false;
}

}  // namespace medvqa::cuda
