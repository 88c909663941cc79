// Where layers find their tensors. Layers ask for a tensor by its full name as in transformers 5
// and by the shape they need; what stands behind (files, a dry plan, a list being drawn up for a
// random checkpoint) is the source's business.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "medvqa/core/dtype.h"

namespace medvqa::nn {

// What a tensor is for; `medvqa init` draws its values accordingly.
enum class TensorRole : std::uint8_t { linear, embedding, norm, bias, gate };

struct TensorRequest {
  std::string name;                 // "model.language_model.layers.0.mlp.up_proj.weight"
  std::vector<std::int64_t> shape;  // as in the file
  TensorRole role = TensorRole::linear;
  bool quantizable = false;  // a linear of a transformer block: may be NF4
};

// Read-only host memory, owned by the source for as long as the source lives. `bytes` is empty if
// the source knows shapes only (a plan without files).
struct HostTensor {
  DType dtype = DType::f32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;
};

// A 4-bit linear [out, in] as bitsandbytes serialises it beside the weight.
// Dequantised value: code[nibble] * absmax[block], in f32, rounded to `dtype`.
// Plain: absmax is f32 [blocks]. Nested: absmax is u8 [blocks], and
// absmax = nested_map[code] * nested_absmax[block / nested_block_size] + nested_offset.
struct HostNf4 {
  std::int64_t out = 0;
  std::int64_t in = 0;
  DType dtype = DType::bf16;
  std::int64_t block_size = 64;
  HostTensor packed;         // u8 [n / 2, 1], first element in the high nibble
  HostTensor absmax;         // f32 or u8 [ceil(n / block_size)]
  HostTensor code;           // f32 [16]
  HostTensor nested_absmax;  // f32, only if nested
  HostTensor nested_map;     // f32 [256], only if nested
  float nested_offset = 0;
  std::int64_t nested_block_size = 256;
  bool nested = false;
};

// Stored elements in another floating type, rounded to nearest even; as many.
void convert_elements(std::span<const std::byte> from, DType from_type, std::span<std::byte> to,
                      DType to_type);

class WeightSource {
 public:
  virtual ~WeightSource() = default;
  // Whether a tensor of that name is stored (dense or 4-bit).
  virtual bool contains(const std::string& name) const = 0;
  // UserError(ExitCode::model) if it is missing, has another shape or is 4-bit.
  virtual HostTensor dense(const TensorRequest& request) const = 0;
  // The 4-bit form of `request.name`, or nothing if the tensor is stored dense.
  virtual std::optional<HostNf4> nf4(const TensorRequest& request) const = 0;
};

// A source without data: it answers every request with empty bytes of the right shape, keeps the
// list of requests, and says that quantizable tensors are NF4 if told so. For plans without
// weights and for drawing random checkpoints.
class DescribedWeights : public WeightSource {
 public:
  struct Options {
    bool nf4 = false;
    bool nested = true;
    DType dtype = DType::bf16;  // of dense tensors and of quant_state
    // Whether a quantizable tensor of that name stays dense all the same (skip_modules).
    std::function<bool(const std::string&)> stays_dense;
  };
  explicit DescribedWeights(Options options) : options_(std::move(options)) {}

  bool contains(const std::string& name) const override;
  HostTensor dense(const TensorRequest& request) const override;
  std::optional<HostNf4> nf4(const TensorRequest& request) const override;

  const std::vector<TensorRequest>& requests() const { return requests_; }

 private:
  void note(const TensorRequest& request) const;

  Options options_;
  mutable std::vector<TensorRequest> requests_;
};

}  // namespace medvqa::nn
