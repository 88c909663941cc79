#include "kernels/cuda/cuda_backend.h"
#include "tests/support/backends.h"

namespace medvqa::testing {

namespace {

std::string library_attention(const ops::Attention& p, const Tensor& scratch) {
  const cuda::Stream stream = cuda::make_stream();
  std::string name;
  {
    cuda::LibraryAttention library(cuda::device_limits(0), stream);
    if (library.forward(p, scratch)) name = cuda::LibraryAttention::version();
    cuda::synchronise(stream);
  }
  cuda::destroy_stream(stream);
  return name;
}

}  // namespace

std::vector<TestedBackend> make_backends() {
  try {
    const auto backend = std::make_shared<cuda::CudaBackend>();
    return {{"cuda", backend, cuda_types(*backend), {}, {}, library_attention}};
  } catch (const UserError&) {
    return {};  // no device here
  }
}

}  // namespace medvqa::testing
