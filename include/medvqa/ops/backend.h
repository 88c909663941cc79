// Every operation a device must offer, once. A public method checks the contract and hands out
// scratch memory; a private pure virtual does the work, so a forgotten operation or a missing
// backward does not compile. No operation returns host data: reading back is download(), and
// nothing else waits for the device. Operand structs with formulas: params.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "medvqa/core/arena.h"
#include "medvqa/ops/params.h"
#include "medvqa/ops/profile.h"

namespace medvqa::ops {

// What sizes of scratch depend on; see scratch.h.
struct DeviceTraits {
  std::string name;
  int threads = 1;                    // CPU: worker threads
  bool gemm_in_f16 = true;            // false: f16 products go through f32 copies
  std::size_t gemm_workspace = 0;     // bytes a product may use beside its operands
  bool attention_on_chip = false;     // true: tiles of scores never lie in device memory
  bool own_memory = false;            // true: the device's memory is not the host's
  bool bf16_pairs = false;            // CPU: has dot products of bf16 pairs (AVX-512 BF16), no AMX
  std::int64_t nf4_product_rows = 0;  // up to so many rows nf4_product() stores no weight
  DType compute = DType::f32;  // what model.compute auto means: the fastest type it trains in
};

// Where something lies while no operation needs it.
enum class Place : std::uint8_t { device, host };

// A copy between host and device that runs beside the operations; 0: one that has ended.
using Transfer = std::uint64_t;

class Backend {
 public:
  virtual ~Backend() = default;
  Backend() = default;
  Backend(const Backend&) = delete;
  Backend& operator=(const Backend&) = delete;

  virtual const DeviceTraits& traits() const = 0;
  // Device memory that an Arena carves up; null for a backend that only measures.
  virtual std::shared_ptr<void> allocate_memory(std::size_t bytes) = 0;
  // Bytes that are free on a device with memory of its own; nothing for one that uses the host's.
  virtual std::optional<std::size_t> free_memory() const { return {}; }
  // Host memory a device copies from and to by itself (page-locked); null likewise.
  virtual std::shared_ptr<void> allocate_host_memory(std::size_t bytes) = 0;
  // Where operations take temporaries from; their scope ends with the call.
  void use_scratch(Arena& scratch) { scratch_ = &scratch; }
  // Times every operation from now on, each to its end on the device; null: no more.
  void use_profile(Profile* profile);

  // --- moving bytes -------------------------------------------------------------------------
  // Host to device; the host memory may be reused at once. `bytes` must equal dst.bytes().
  void upload(const void* host, std::size_t bytes, const Tensor& dst);
  // Device to host, after everything queued before; the only call that waits.
  void download(const Tensor& src, void* host, std::size_t bytes);
  // Device to memory of allocate_host_memory() and back, beside the operations and in the order of
  // these calls. Each begins when the operations queued before it have ended, and neither waits:
  // until await() what it reads must not be written, and what it writes not be read.
  // Contiguous, same type and shape.
  Transfer offload(const Tensor& src, const Tensor& host);
  Transfer fetch(const Tensor& host, const Tensor& dst);
  // Operations queued from now on begin when this transfer, and all before it, have ended.
  void await(Transfer transfer);
  // Same type and shape; rows may be strided on either side.
  void copy(const Tensor& src, const Tensor& dst);
  // float to float of another type, rounded to nearest even.
  void convert(const Tensor& src, const Tensor& dst);
  void fill(const Tensor& dst, double value);
  // dst = src, or dst += src: how a gradient passes through an addition.
  void accumulate(const Tensor& src, const GradOut& dst);

  // --- products -----------------------------------------------------------------------------
  void gemm(const Gemm& p);
  // y_OI = dequantised weight, rounded to weight.rounded_to, then converted to y's type.
  void dequantize_nf4(const Nf4Weight& weight, const Tensor& y_OI);
  void nf4_product(const Nf4Product& p);
  // packed: u8 [ceil(n/2)], absmax: f32 [ceil(n/64)]; x: f32, bf16 or f16 with n elements.
  void quantize_nf4(const Tensor& x, const Tensor& packed, const Tensor& absmax);

  // --- norms, positions, attention ------------------------------------------------------------
  void rms_norm(const RmsNorm& p);
  void rms_norm_backward(const RmsNormBackward& p);
  void layer_norm(const LayerNorm& p);
  void layer_norm_backward(const LayerNormBackward& p);
  void rotary_table(const RotaryTable& p);
  void rotary(const Rotary& p);
  void attention(const Attention& p);
  void attention_backward(const AttentionBackward& p);

  // --- feed-forward -----------------------------------------------------------------------
  // gelu_erf: x Phi(x); gelu_tanh: its tanh approximation; quick_gelu: x sigmoid(1.702 x);
  // silu: x sigmoid(x). Hendrycks & Gimpel 2016.
  void activation(Activation kind, const Tensor& x, const Tensor& y);
  void activation_backward(Activation kind, const Tensor& x, const Tensor& dy, const GradOut& dx);
  void swiglu(const SwiGlu& p);
  void swiglu_backward(const SwiGluBackward& p);
  void dropout(const Dropout& p);

  // --- rows -----------------------------------------------------------------------------------
  // y[i] = table[rows[i]]: the embedding, and the choice of label rows. rows_T: i32.
  void gather_rows(const Tensor& table_VC, const Tensor& rows_T, const Tensor& y_TC);
  // y[rows[i]] = x[i], rows distinct: the splice of image features, and gather's backward.
  void scatter_rows(const Tensor& x_IC, const Tensor& rows_I, const Tensor& y_TC);
  // y[t] = factor * scale[t] * x[t], or y += it: gates and row masks. scale_T: accumulator type,
  // empty for all ones. x_TC, y_TC: float, one type, rows may be strided, may not alias.
  void scale_rows(const Tensor& x_TC, double factor, const Tensor& scale_T, const GradOut& y_TC);

  // --- loss and update --------------------------------------------------------------------
  void linear_cross_entropy(const LinearCrossEntropy& p);
  // norm_1 (f32 [1]) = L2 norm of the L2 norms of all tensors (f32).
  void global_norm(std::span<const Tensor> tensors, const Tensor& norm_1);
  void adamw(const AdamW& p);

 protected:
  // nf4_product as a dequantisation and a product.
  void compose_nf4_product(const Nf4Product& p, const Tensor& scratch);

 private:
  Arena& scratch() const;
  Tensor take_scratch(std::size_t bytes);

  virtual void do_upload(const void* host, const Tensor& dst) = 0;
  virtual void do_download(const Tensor& src, void* host) = 0;
  virtual Transfer do_offload(const Tensor& src, const Tensor& host) = 0;
  virtual Transfer do_fetch(const Tensor& host, const Tensor& dst) = 0;
  virtual void do_await(Transfer transfer) = 0;
  virtual void do_copy(const Tensor& src, const Tensor& dst) = 0;
  virtual void do_convert(const Tensor& src, const Tensor& dst) = 0;
  virtual void do_fill(const Tensor& dst, double value) = 0;
  virtual void do_accumulate(const Tensor& src, const GradOut& dst) = 0;
  virtual void do_gemm(const Gemm& p, const Tensor& scratch) = 0;
  virtual void do_dequantize_nf4(const Nf4Weight& weight, const Tensor& y_OI) = 0;
  virtual void do_nf4_product(const Nf4Product& p, const Tensor& scratch) = 0;
  virtual void do_quantize_nf4(const Tensor& x, const Tensor& packed, const Tensor& absmax) = 0;
  virtual void do_rms_norm(const RmsNorm& p) = 0;
  virtual void do_rms_norm_backward(const RmsNormBackward& p) = 0;
  virtual void do_layer_norm(const LayerNorm& p) = 0;
  virtual void do_layer_norm_backward(const LayerNormBackward& p) = 0;
  virtual void do_rotary_table(const RotaryTable& p) = 0;
  virtual void do_rotary(const Rotary& p) = 0;
  virtual void do_attention(const Attention& p, const Tensor& scratch) = 0;
  virtual void do_attention_backward(const AttentionBackward& p, const Tensor& scratch) = 0;
  virtual void do_activation(Activation kind, const Tensor& x, const Tensor& y) = 0;
  virtual void do_activation_backward(Activation kind, const Tensor& x, const Tensor& dy,
                                      const GradOut& dx) = 0;
  virtual void do_swiglu(const SwiGlu& p) = 0;
  virtual void do_swiglu_backward(const SwiGluBackward& p) = 0;
  virtual void do_dropout(const Dropout& p) = 0;
  virtual void do_gather_rows(const Tensor& table_VC, const Tensor& rows_T, const Tensor& y_TC) = 0;
  virtual void do_scatter_rows(const Tensor& x_IC, const Tensor& rows_I, const Tensor& y_TC) = 0;
  virtual void do_scale_rows(const Tensor& x_TC, double factor, const Tensor& scale_T,
                             const GradOut& y_TC) = 0;
  virtual void do_linear_cross_entropy(const LinearCrossEntropy& p, const Tensor& scratch) = 0;
  virtual void do_global_norm(std::span<const Tensor> tensors, const Tensor& norm_1) = 0;
  virtual void do_adamw(const AdamW& p) = 0;
  // Until everything queued has ended; what went wrong there is the next call's error.
  virtual void do_wait() noexcept {}

  Arena* scratch_ = nullptr;
  Profile* profile_ = nullptr;
};

}  // namespace medvqa::ops
