// The reference device: f64 (the oracle), f32, bf16 and f16 storage, oneDNN products, OpenMP;
// attention in bf16 by products of its own where the processor has the instruction.
// Each .cpp of this folder holds one operation, and is the specification of its CUDA kernel.
#pragma once

#include <memory>
#include <vector>

#include "medvqa/ops/backend.h"

namespace medvqa::cpu {

class MatmulCache;

// What multiplies in bf16 attention: the form that is faster on this processor, or oneDNN.
enum class AttentionProducts { best, onednn };

class CpuBackend final : public ops::Backend {
 public:
  // Uses OpenMP's number of threads. UserError(ExitCode::device) on a processor without AVX2.
  // The library behind the products, in words.
  static std::string version();
  explicit CpuBackend(AttentionProducts attention = AttentionProducts::best);
  ~CpuBackend() override;
  const ops::DeviceTraits& traits() const override { return traits_; }
  std::shared_ptr<void> allocate_memory(std::size_t bytes) override;
  std::shared_ptr<void> allocate_host_memory(std::size_t bytes) override {
    return allocate_memory(bytes);
  }

 private:
  void do_upload(const void* host, const Tensor& dst) override;
  void do_download(const Tensor& src, void* host) override;
  ops::Transfer do_offload(const Tensor& src, const Tensor& host) override;
  ops::Transfer do_fetch(const Tensor& host, const Tensor& dst) override;
  void do_await(ops::Transfer) override {}
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

  ops::DeviceTraits traits_;
  std::unique_ptr<MatmulCache> matmuls_;
  std::vector<std::unique_ptr<MatmulCache>> head_products_;  // one a thread
};

}  // namespace medvqa::cpu
