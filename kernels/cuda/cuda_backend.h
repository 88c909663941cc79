// The CUDA device: f32, bf16 and f16 storage, sums in f32. Each operation is the .cu file of the
// same stem as its file in kernels/cpu, which is its specification.
//
// The class is built twice: by nvcc for a GPU, and by the host compiler with the emulated machine
// of kernels/emulation. Which of the two a program has is decided when it is linked.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "kernels/cuda/device_memory.h"
#include "kernels/cuda/library_attention.h"
#include "kernels/cuda/products.h"
#include "medvqa/ops/backend.h"

namespace medvqa::cuda {

struct UpdateState;  // update_state.h

class CudaBackend final : public ops::Backend {
 public:
  // Devices of this machine; 0 without a driver. UserError(ExitCode::device) for a driver older
  // than this program.
  static int devices();
  // What it was built with and for, and what the driver is for: for people.
  static std::string version();

  // UserError(ExitCode::device) where there is no such device.
  explicit CudaBackend(int device = 0);
  ~CudaBackend() override;
  const ops::DeviceTraits& traits() const override { return traits_; }
  std::shared_ptr<void> allocate_memory(std::size_t bytes) override;
  std::optional<std::size_t> free_memory() const override;
  std::shared_ptr<void> allocate_host_memory(std::size_t bytes) override;

 private:
  void do_upload(const void* host, const Tensor& dst) override;
  void do_download(const Tensor& src, void* host) override;
  ops::Transfer do_offload(const Tensor& src, const Tensor& host) override;
  ops::Transfer do_fetch(const Tensor& host, const Tensor& dst) override;
  void do_await(ops::Transfer transfer) override;
  void do_copy(const Tensor& src, const Tensor& dst) override;
  void do_convert(const Tensor& src, const Tensor& dst) override;
  void do_fill(const Tensor& dst, double value) override;
  void do_accumulate(const Tensor& src, const ops::GradOut& dst) override;
  void do_gemm(const ops::Gemm& p, const Tensor& scratch) override;
  void do_dequantize_nf4(const ops::Nf4Weight& weight, const Tensor& y_OI) override;
  void do_nf4_product(const ops::Nf4Product& p, const Tensor& scratch) override;
  void do_quantize_nf4(const Tensor& x, const Tensor& packed, const Tensor& absmax) override;
  void do_rms_norm(const ops::RmsNorm& p) override;
  void do_rms_norm_backward(const ops::RmsNormBackward& p) override;
  void do_layer_norm(const ops::LayerNorm& p) override;
  void do_layer_norm_backward(const ops::LayerNormBackward& p) override;
  void do_rotary_table(const ops::RotaryTable& p) override;
  void do_rotary(const ops::Rotary& p) override;
  void do_attention(const ops::Attention& p, const Tensor& scratch) override;
  void do_attention_backward(const ops::AttentionBackward& p, const Tensor& scratch) override;
  void do_activation(ops::Activation kind, const Tensor& x, const Tensor& y) override;
  void do_activation_backward(ops::Activation kind, const Tensor& x, const Tensor& dy,
                              const ops::GradOut& dx) override;
  void do_swiglu(const ops::SwiGlu& p) override;
  void do_swiglu_backward(const ops::SwiGluBackward& p) override;
  void do_dropout(const ops::Dropout& p) override;
  void do_gather_rows(const Tensor& table_VC, const Tensor& rows_T, const Tensor& y_TC) override;
  void do_scatter_rows(const Tensor& x_IC, const Tensor& rows_I, const Tensor& y_TC) override;
  void do_scale_rows(const Tensor& x_TC, double factor, const Tensor& scale_T,
                     const ops::GradOut& y_TC) override;
  void do_linear_cross_entropy(const ops::LinearCrossEntropy& p, const Tensor& scratch) override;
  void do_global_norm(std::span<const Tensor> tensors, const Tensor& norm_1) override;
  void do_adamw(const ops::AdamW& p) override;
  void do_wait() noexcept override;

  DeviceLimits limits_;
  Stream stream_ = nullptr;
  std::unique_ptr<Products> products_;
  std::unique_ptr<UploadQueue> uploads_;
  std::unique_ptr<CopyQueue> copies_;
  std::unique_ptr<LibraryAttention> library_attention_;
  std::unique_ptr<UpdateState> update_;
  ops::DeviceTraits traits_;
};

}  // namespace medvqa::cuda
