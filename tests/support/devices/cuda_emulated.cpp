#include "kernels/cuda/cuda_backend.h"
#include "kernels/emulation/memory.h"
#include "tests/support/backends.h"

namespace medvqa::testing {

std::vector<TestedBackend> make_backends() {
  return {{"cuda-emulated",
           std::make_shared<cuda::CudaBackend>(),
           {DType::f32, DType::bf16, DType::f16},
           emulation::forbid,
           emulation::name_range}};
}

}  // namespace medvqa::testing
