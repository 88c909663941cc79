// A checkpoint with a LoRA adapter merged into its weights, tensor by tensor.
//
//   adapted linear   W + scaling B A in f32, rounded once to `dtype`
//   anything else    the base's values, rounded to `dtype`; integers as they are
//
// W is what training multiplies with: a 4-bit weight is dequantised and rounded to the type of its
// quant_state first. Hu et al. 2021, section 4.1.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "medvqa/io/checkpoint_folder.h"
#include "medvqa/io/peft_adapter.h"
#include "medvqa/nn/builder.h"
#include "medvqa/train/arenas.h"

namespace medvqa::train {

struct MergedTensor {
  std::string name;    // canonical
  std::string stored;  // as the base's files spell it
  std::vector<std::int64_t> shape;
  DType dtype = DType::bf16;
  bool adapted = false;
  bool quantizable = false;  // 4-bit if the base is quantised on load
};

class MergedWeights {
 public:
  // `dtype` is bf16 or f16. Device memory for the largest tensor alone is taken. Base, adapter and
  // backend must outlive this. UserError(ExitCode::model) for a module that is none of the base's.
  MergedWeights(ops::Backend& backend, const io::CheckpointFolder& base,
                const io::PeftAdapter& adapter, nn::QuantizeOnLoad quantize, DType dtype);

  // Every tensor of the base but the side tensors of 4-bit weights, by name.
  const std::vector<MergedTensor>& tensors() const { return tensors_; }
  const io::AdapterProof& adapter() const { return proof_; }

  // Bytes of a tensor without and with its adapter; valid until the next call. UserError(
  // ExitCode::model) if a value is not finite in `dtype`.
  std::span<const std::byte> base(const MergedTensor& t) { return bytes_of(t, false); }
  std::span<const std::byte> merged(const MergedTensor& t) { return bytes_of(t, t.adapted); }

 private:
  void list(const std::vector<nn::TensorRequest>& architecture);
  // Whether the base's bytes are the result.
  bool as_stored(const MergedTensor& tensor, bool adapt) const;
  std::span<const std::byte> bytes_of(const MergedTensor& tensor, bool adapt);
  void compute(ops::Backend& backend, Arenas& arenas, const MergedTensor& tensor, bool adapt);
  void add_adapter(ops::Backend& backend, Arena& arena, const MergedTensor& tensor,
                   const Tensor& weight) const;
  void check_finite(const MergedTensor& tensor) const;

  ops::Backend& backend_;
  const io::CheckpointFolder& base_;
  const io::PeftAdapter& adapter_;
  nn::QuantizeOnLoad quantize_;
  DType dtype_;
  io::AdapterProof proof_;
  std::vector<MergedTensor> tensors_;
  std::optional<Arenas> arenas_;
  std::vector<std::byte> bytes_;
};

// Values of a 16-bit type that are infinite or no number.
std::size_t count_not_finite(std::span<const std::byte> bytes, DType dtype);
// Values of a 16-bit type that differ; zeros of either sign are one.
std::size_t count_different(std::span<const std::byte> a, std::span<const std::byte> b);

}  // namespace medvqa::train
