// Operations that have no kernel yet. Each leaves this file with the .cu file that brings it.
#include <string>

#include "kernels/cuda/cuda_backend.h"

namespace medvqa::cuda {

namespace {
[[noreturn]] void fail_unwritten(const char* operation) {
  throw InternalError(std::string(operation) + " has no CUDA kernel yet");
}
}  // namespace

void CudaBackend::do_attention(const ops::Attention&, const Tensor&) {
  fail_unwritten("attention");
}
void CudaBackend::do_attention_backward(const ops::AttentionBackward&, const Tensor&) {
  fail_unwritten("attention_backward");
}

}  // namespace medvqa::cuda
