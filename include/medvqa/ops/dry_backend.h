// Computes nothing. With measuring arenas it turns the real training step into a memory plan: the
// public methods still check every contract and take the scratch the planned device would take.
// It counts floating-point operations on the way.
#pragma once

#include <utility>

#include "medvqa/ops/backend.h"
#include "medvqa/ops/profile.h"

namespace medvqa::ops {

// As counted by operations() of profile.h.
struct OperationCount {
  double linear = 0;
  double attention = 0;
};

class DryBackend final : public Backend {
 public:
  explicit DryBackend(DeviceTraits planned) : traits_(std::move(planned)) {}
  const DeviceTraits& traits() const override { return traits_; }
  std::shared_ptr<void> allocate_memory(std::size_t) override { return nullptr; }
  const OperationCount& count() const { return count_; }
  void clear_count() { count_ = {}; }

 private:
  void do_upload(const void*, const Tensor&) override {}
  void do_download(const Tensor&, void*) override {}
  void do_copy(const Tensor&, const Tensor&) override {}
  void do_convert(const Tensor&, const Tensor&) override {}
  void do_fill(const Tensor&, double) override {}
  void do_accumulate(const Tensor&, const GradOut&) override {}
  void do_gemm(const Gemm& p, const Tensor&) override { count_.linear += operations(p); }
  void do_gemm_group(std::span<const Gemm> group, const Tensor&) override {
    for (const Gemm& p : group) count_.linear += operations(p);
  }
  void do_dequantize_nf4(const Nf4Weight&, const Tensor&) override {}
  void do_nf4_product(const Nf4Product& p, const Tensor&) override {
    count_.linear += operations(p);
  }
  void do_quantize_nf4(const Tensor&, const Tensor&, const Tensor&) override {}
  void do_rms_norm(const RmsNorm&) override {}
  void do_rms_norm_backward(const RmsNormBackward&) override {}
  void do_layer_norm(const LayerNorm&) override {}
  void do_layer_norm_backward(const LayerNormBackward&) override {}
  void do_rotary_table(const RotaryTable&) override {}
  void do_rotary(const Rotary&) override {}
  void do_attention(const Attention& p, const Tensor&) override {
    count_.attention += operations(p);
  }
  void do_attention_backward(const AttentionBackward& p, const Tensor&) override {
    count_.attention += operations(p);
  }
  void do_activation(Activation, const Tensor&, const Tensor&) override {}
  void do_activation_backward(Activation, const Tensor&, const Tensor&, const GradOut&) override {}
  void do_swiglu(const SwiGlu&) override {}
  void do_swiglu_backward(const SwiGluBackward&) override {}
  void do_dropout(const Dropout&) override {}
  void do_gather_rows(const Tensor&, const Tensor&, const Tensor&) override {}
  void do_scatter_rows(const Tensor&, const Tensor&, const Tensor&) override {}
  void do_scale_rows(const Tensor&, double, const Tensor&, const GradOut&) override {}
  void do_linear_cross_entropy(const LinearCrossEntropy& p, const Tensor&) override {
    count_.linear += operations(p);
  }
  void do_global_norm(std::span<const Tensor>, const Tensor&) override {}
  void do_adamw(const AdamW&) override {}

  DeviceTraits traits_;
  OperationCount count_;
};

}  // namespace medvqa::ops
