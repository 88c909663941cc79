// What layers are built from: where tensors come from, where they go, and which linears adapt.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "medvqa/nn/weights.h"
#include "medvqa/ops/backend.h"

namespace medvqa::nn {

// Where a linear stands, for lora.vision, lora.language, lora.attention and lora.mlp.
enum class LinearKind : std::uint8_t {
  vision_attention,
  vision_mlp,
  language_attention,
  language_mlp,
  other,  // merger, projector, head, patch embedding: never adapted by kind, never quantised
};

// f32, or f64 where the compute type is f64.
struct Parameter {
  Tensor value;
  Tensor grad;  // zeroed at the start of an optimizer step
};

// The adapter of one linear.
struct LoraModule {
  std::string name;  // the linear's full name
  std::int64_t r = 0;
  std::int64_t in = 0;
  std::int64_t out = 0;
  double scaling = 1;
  double dropout = 0;
  std::uint64_t stream = 0;  // of its dropout: its index among the adapted modules
  Parameter a;               // [r, in]
  Parameter b;               // [out, r]
};

struct LoraOptions {
  std::int64_t r = 16;
  double scaling = 1;  // alpha / r, or alpha / sqrt(r) with rsLoRA
  double dropout = 0;
  std::function<bool(const std::string& name, LinearKind kind)> adapts;
};

enum class QuantizeOnLoad : std::uint8_t { no, nf4, nf4_nested };

// When a 4-bit weight becomes a matrix in the compute type. Numbers do not depend on it.
enum class Dequantize : std::uint8_t {
  at_load,      // once; the packed form is not kept
  per_segment,  // forward for the replay, and kept from there into the backward
  per_use,      // before every product
};

// The type of the sums that run through a model from block to block. f16 ends at 65504, which the
// residuals of real models exceed in a few channels (Sun et al. 2024, massive activations): with it
// they, and their gradients, are f32, and only what a block computes from them is f16.
constexpr DType residual_type(DType compute) {
  return compute == DType::f16 ? DType::f32 : compute;
}

// Counts for plan and report, tied tensors once.
struct ParameterCount {
  std::int64_t frozen = 0;
  std::int64_t trainable = 0;
};

class Builder {
 public:
  Builder(ops::Backend& backend, const WeightSource& source, Arena& weights, Arena& adapters,
          DType compute, LoraOptions lora, QuantizeOnLoad quantize,
          Dequantize dequantize = Dequantize::per_use, std::vector<std::int32_t> head_rows = {},
          ops::Place embedding = ops::Place::device);

  DType compute() const { return compute_; }
  ops::Backend& backend() { return backend_; }
  const WeightSource& source() const { return source_; }

  // A dense tensor in the compute type, reshaped to `shape` in memory.
  Tensor dense(const TensorRequest& request, Shape shape);
  // Where nn::Embedding puts its table, and the table as stored if that is the host.
  ops::Place embedding() const { return embedding_; }
  HostTensor read_on_host(const TensorRequest& request);
  // Whether any was put there.
  bool host_tables() const { return host_tables_; }
  // Whether head() takes all rows of the vocabulary, frozen.
  bool whole_head() const { return head_rows_.empty(); }
  // The matrix from hidden states to logits, `request` [V, C] where it is stored. Without
  // `head_rows` it is frozen: [V, C] in the compute type, or `tied`, the embedding, where that is
  // given. With them it is those rows in that order, [rows, C], trained: trained_head() then.
  Tensor head(const TensorRequest& request, const Tensor& tied = {});
  // A linear's weight in the compute type, dequantised if it is a 4-bit one.
  Tensor dequantized(const TensorRequest& request, Shape shape);
  Dequantize dequantize() const { return dequantize_; }
  // The 4-bit form of a linear's weight, if stored so or quantised on load; else nothing.
  std::optional<ops::Nf4Weight> nf4(const TensorRequest& request);
  // The module's adapter if it is to be adapted, else null. Values are left unset.
  std::shared_ptr<LoraModule> lora(const std::string& name, LinearKind kind, std::int64_t out,
                                   std::int64_t in);

  const std::vector<std::shared_ptr<LoraModule>>& modules() const { return modules_; }
  const std::optional<Parameter>& trained_head() const { return trained_head_; }
  const ParameterCount& count() const { return count_; }

 private:
  HostTensor read(const TensorRequest& request);
  Tensor train_head(const TensorRequest& request);
  Parameter parameter(Shape shape);
  void upload(const HostTensor& t, const Tensor& out);
  Tensor upload(const HostTensor& t, DType type, Shape shape);
  ops::Nf4Weight upload_nf4(const HostNf4& w);
  ops::Nf4Weight quantize(const TensorRequest& request);

  ops::Backend& backend_;
  const WeightSource& source_;
  Arena& weights_;
  Arena& adapters_;
  DType compute_;
  LoraOptions lora_;
  QuantizeOnLoad quantize_;
  Dequantize dequantize_;
  std::vector<std::int32_t> head_rows_;
  ops::Place embedding_;
  bool host_tables_ = false;
  std::optional<Parameter> trained_head_;
  std::vector<std::shared_ptr<LoraModule>> modules_;
  ParameterCount count_;
};

}  // namespace medvqa::nn
