// Operations that have no kernel yet. Each leaves this file with the .cu file that brings it.
#include <string>

#include "kernels/cuda/cuda_backend.h"

namespace medvqa::cuda {

namespace {
[[noreturn]] void fail_unwritten(const char* operation) {
  throw InternalError(std::string(operation) + " has no CUDA kernel yet");
}
}  // namespace

void CudaBackend::do_rms_norm(const ops::RmsNorm&) {
  fail_unwritten("rms_norm");
}
void CudaBackend::do_rms_norm_backward(const ops::RmsNormBackward&) {
  fail_unwritten("rms_norm_backward");
}
void CudaBackend::do_layer_norm(const ops::LayerNorm&) {
  fail_unwritten("layer_norm");
}
void CudaBackend::do_layer_norm_backward(const ops::LayerNormBackward&) {
  fail_unwritten("layer_norm_backward");
}
void CudaBackend::do_rotary_table(const ops::RotaryTable&) {
  fail_unwritten("rotary_table");
}
void CudaBackend::do_rotary(const ops::Rotary&) {
  fail_unwritten("rotary");
}
void CudaBackend::do_activation(ops::Activation, const Tensor&, const Tensor&) {
  fail_unwritten("activation");
}
void CudaBackend::do_activation_backward(ops::Activation, const Tensor&, const Tensor&,
                                         const ops::GradOut&) {
  fail_unwritten("activation_backward");
}
void CudaBackend::do_swiglu(const ops::SwiGlu&) {
  fail_unwritten("swiglu");
}
void CudaBackend::do_swiglu_backward(const ops::SwiGluBackward&) {
  fail_unwritten("swiglu_backward");
}
void CudaBackend::do_dropout(const ops::Dropout&) {
  fail_unwritten("dropout");
}
void CudaBackend::do_linear_cross_entropy(const ops::LinearCrossEntropy&, const Tensor&) {
  fail_unwritten("linear_cross_entropy");
}
void CudaBackend::do_global_norm(std::span<const Tensor>, const Tensor&) {
  fail_unwritten("global_norm");
}
void CudaBackend::do_adamw(const ops::AdamW&) {
  fail_unwritten("adamw");
}

}  // namespace medvqa::cuda
