#include "kernels/cuda/cuda_backend.h"
#include "tests/support/backends.h"

namespace medvqa::testing {

std::vector<TestedBackend> make_backends() {
  try {
    const auto backend = std::make_shared<cuda::CudaBackend>();
    return {{"cuda", backend, {DType::f32, DType::bf16, DType::f16}}};
  } catch (const UserError&) {
    return {};  // no device here
  }
}

}  // namespace medvqa::testing
