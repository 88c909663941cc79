#include "kernels/cuda/cuda_backend.h"
#include "tests/support/backends.h"

namespace medvqa::testing {

std::vector<TestedBackend> make_backends() {
  try {
    const auto backend = std::make_shared<cuda::CudaBackend>();
    return {{"cuda", backend, cuda_types(*backend)}};
  } catch (const UserError&) {
    return {};  // no device here
  }
}

}  // namespace medvqa::testing
