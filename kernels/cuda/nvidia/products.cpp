// The products of a GPU.
#include "kernels/cuda/products.h"

namespace medvqa::cuda {

struct Products::State {};

Products::Products(Stream) {}
Products::~Products() = default;

ops::DeviceTraits Products::traits() const {
  return {};
}

void Products::gemm(const ops::Gemm&, const Tensor&) {
  throw InternalError("gemm has no CUDA product yet");
}

void Products::gemm_group(std::span<const ops::Gemm>, const Tensor&) {
  throw InternalError("gemm_group has no CUDA product yet");
}

}  // namespace medvqa::cuda
