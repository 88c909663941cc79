// Computes nothing. With measuring arenas it turns the real training step into a memory plan: the
// public methods still check every contract and take the scratch the planned device would take.
// It counts floating-point operations on the way, and estimates how long a device would take.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "medvqa/ops/backend.h"
#include "medvqa/ops/device_rates.h"
#include "medvqa/ops/profile.h"

namespace medvqa::ops {

// As counted by operations() of profile.h.
struct OperationCount {
  double linear = 0;
  double attention = 0;
};

class DryBackend final : public Backend {
 public:
  explicit DryBackend(DeviceTraits planned)
      : traits_(std::move(planned)), rates_(rates_of(traits_.name)) {}
  const DeviceTraits& traits() const override { return traits_; }
  std::shared_ptr<void> allocate_memory(std::size_t) override { return nullptr; }
  std::shared_ptr<void> allocate_host_memory(std::size_t) override { return nullptr; }
  const OperationCount& count() const { return count_; }
  // Products and attention at the device's rate, bytes dequantised over its bandwidth, and the
  // waiting for transfers that their beginning and the operations since did not hide. Everything
  // else is left out.
  double seconds() const { return now_; }

 private:
  void do_upload(const void*, const Tensor&) override {}
  void do_download(const Tensor&, void*) override {}
  Transfer do_offload(const Tensor& src, const Tensor&) override { return transfer(src.bytes()); }
  Transfer do_fetch(const Tensor& host, const Tensor&) override { return transfer(host.bytes()); }
  void do_await(Transfer t) override { now_ = std::max(now_, ended_.at(t - 1)); }
  void do_copy(const Tensor&, const Tensor&) override {}
  void do_convert(const Tensor&, const Tensor&) override {}
  void do_fill(const Tensor&, double) override {}
  void do_accumulate(const Tensor&, const GradOut&) override {}
  void do_gemm(const Gemm& p, const Tensor&) override { compute(count_.linear, operations(p)); }
  void do_dequantize_nf4(const Nf4Weight& w, const Tensor& y) override {
    now_ += static_cast<double>(w.packed.bytes() + w.absmax.bytes() + y.bytes()) / rates_.memory;
  }
  void do_nf4_product(const Nf4Product& p, const Tensor&) override {
    compute(count_.linear, operations(p));
  }
  void do_quantize_nf4(const Tensor&, const Tensor&, const Tensor&) override {}
  void do_rms_norm(const RmsNorm&) override {}
  void do_rms_norm_backward(const RmsNormBackward&) override {}
  void do_layer_norm(const LayerNorm&) override {}
  void do_layer_norm_backward(const LayerNormBackward&) override {}
  void do_rotary_table(const RotaryTable&) override {}
  void do_rotary(const Rotary&) override {}
  void do_attention(const Attention& p, const Tensor&) override {
    compute(count_.attention, operations(p));
  }
  void do_attention_backward(const AttentionBackward& p, const Tensor&) override {
    compute(count_.attention, operations(p));
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
    compute(count_.linear, operations(p));
  }
  void do_global_norm(std::span<const Tensor>, const Tensor&) override {}
  void do_adamw(const AdamW&) override {}

  void compute(double& counter, double operations) {
    counter += operations;
    now_ += operations / rates_.operations;
  }
  Transfer transfer(std::size_t bytes) {
    link_free_ = std::max(link_free_, now_) + static_cast<double>(bytes) / rates_.link;
    ended_.push_back(link_free_);
    return ended_.size();
  }

  DeviceTraits traits_;
  DeviceRates rates_;
  OperationCount count_;
  double now_ = 0;             // when the operations so far have ended
  double link_free_ = 0;       // when the transfers so far have
  std::vector<double> ended_;  // by transfer
};

}  // namespace medvqa::ops
