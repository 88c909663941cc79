// mllama's vision tower: a local and a gated global transformer over the tiles of a picture.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "medvqa/models/mllama/layout.h"
#include "medvqa/models/upload.h"
#include "medvqa/nn/linear.h"
#include "medvqa/nn/norm.h"

namespace medvqa::models::mllama {

// tanh of a stored gate, on the host: a constant of the model. Without values (a plan) 0.
double read_gate(nn::Builder& builder, const std::string& name);

// x += g a(x), a = o(attention(qkv(norm x)));  x += h m(x), m = fc2(gelu(fc1(norm x))).
// g = h = 1 in the local transformer, tanh of a stored gate in the global one.
class VisionBlock {
 public:
  VisionBlock(nn::Builder& builder, const std::string& name, const VisionConfig& config,
              bool gated);
  autograd::Var forward(autograd::Tape& t, const autograd::Var& x_TC,
                        std::span<const autograd::AttentionPart> parts) const;
  const std::string& name() const { return name_; }

 private:
  std::string name_;
  VisionConfig config_;
  nn::LayerNorm norm1_, norm2_;
  nn::Linear query_, key_, value_, output_, fc1_, fc2_;
  std::optional<double> attention_gate_, mlp_gate_;
};

// Patches, class tokens and positions: everything before the first block. Frozen.
class VisionEmbedding {
 public:
  VisionEmbedding(nn::Builder& builder, const std::string& name, const VisionConfig& config);
  // [images * rows_of_an_image, C]; padding is zero.
  autograd::StepVar forward(autograd::SegmentTape& tape, autograd::StepVar pixels_PK,
                            const std::vector<ImageRows>& images) const;
  const std::string& name() const { return name_; }

 private:
  struct Rows;
  autograd::Var embed(autograd::Tape& t, const autograd::Var& pixels, const Rows& rows) const;
  void add_table(autograd::Tape& t, const Tensor& table, const Tensor& rows, double factor,
                 const Tensor& scale, const Tensor& x) const;

  std::string name_;
  VisionConfig config_;
  nn::Linear patch_;
  Tensor class_1C_;
  Tensor position_NC_;  // by token of a tile
  double position_gate_;
  Tensor tile_position_MC_;  // by aspect-ratio id, tile and token
  Tensor pre_tile_MC_;       // by aspect-ratio id and tile
  double pre_tile_gate_;
  nn::LayerNorm norm_;
};

class VisionTower {
 public:
  VisionTower(nn::Builder& builder, const std::string& name, const VisionConfig& config);
  // The projector's output [S, its channels] for the rows `key_rows`. It reads, side by side, the
  // last block's output and those of the listed layers: of every channel all layers' values in
  // turn.
  autograd::StepVar forward(autograd::SegmentTape& tape, const PackedInput& input,
                            const std::vector<ImageRows>& images,
                            const std::vector<std::int32_t>& key_rows, const nn::Linear& projector,
                            DType compute) const;

 private:
  // The local transformer; fills `features` in the order of the configuration.
  autograd::StepVar local(autograd::SegmentTape& tape, autograd::StepVar x,
                          const std::vector<autograd::AttentionPart>& parts,
                          std::vector<autograd::StepVar>& features) const;
  autograd::StepVar between(autograd::SegmentTape& tape, const autograd::StepVar& x,
                            const std::vector<ImageRows>& images) const;

  std::string name_;
  VisionConfig config_;
  VisionEmbedding embedding_;
  std::vector<VisionBlock> local_, global_;
  nn::LayerNorm norm_;
  Tensor post_tile_MC_;  // by aspect-ratio id and tile
  double post_tile_gate_;
};

// The rectangles with their segments on the device.
std::vector<autograd::AttentionPart> attention_parts(autograd::SegmentTape& tape,
                                                     const std::vector<RowParts>& parts);

}  // namespace medvqa::models::mllama
