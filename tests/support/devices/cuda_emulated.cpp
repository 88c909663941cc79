#include "kernels/cuda/cuda_backend.h"
#include "kernels/emulation/memory.h"
#include "tests/support/backends.h"

namespace medvqa::testing {

std::vector<TestedBackend> make_backends() {
  const auto backend = std::make_shared<cuda::CudaBackend>();
  return {
      {"cuda-emulated", backend, cuda_types(*backend), emulation::forbid, emulation::name_range}};
}

}  // namespace medvqa::testing
