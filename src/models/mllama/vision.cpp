// T rows of all images, C channels, P patches, N tokens of a tile, M rows of a table, S keys.
#include "medvqa/models/mllama/vision.h"

#include <array>
#include <cmath>
#include <utility>

namespace medvqa::models::mllama {

using autograd::AttentionPart;
using autograd::SegmentTape;
using autograd::StepVar;
using autograd::Tape;
using autograd::Var;
using nn::LinearKind;
using nn::TensorRole;

namespace {

// nn.LayerNorm's own epsilon: these two norms are made without the configuration's.
constexpr double kOuterEps = 1e-5;

using Indices = std::vector<std::int32_t>;

Tensor upload_indices(SegmentTape& tape, const Indices& rows) {
  return upload(tape, std::span<const std::int32_t>(rows),
                {static_cast<std::int64_t>(rows.size())});
}

// A table [ids + 1, rows * C] as one row each: a gather then finds (id * rows + row).
Tensor table(nn::Builder& b, const std::string& name, const VisionConfig& c, std::int64_t rows) {
  const auto ids = static_cast<std::int64_t>(c.ratios.size()) + 1;
  return b.dense({name, {ids, rows * c.channels}, TensorRole::embedding}, {ids * rows, c.channels});
}

std::int32_t index(std::int64_t i) {
  return static_cast<std::int32_t>(i);
}

}  // namespace

double read_gate(nn::Builder& b, const std::string& name) {
  const Tensor gate = b.dense({name, {1}, TensorRole::gate}, {1});
  if (gate.data == nullptr) return 0;
  double value = 0;
  dispatch_float(gate.dtype, [&]<class T>() {
    T stored{};
    b.backend().download(gate, &stored, sizeof(stored));
    value = static_cast<double>(static_cast<Accumulator<T>>(stored));
  });
  return std::tanh(value);
}

std::vector<AttentionPart> attention_parts(SegmentTape& tape, const std::vector<RowParts>& parts) {
  Indices ends;
  for (const RowParts& p : parts) {
    ends.insert(ends.end(), {0, index(p.q.size()), 0, index(p.k.size())});
  }
  const Tensor cu = upload(tape, std::span<const std::int32_t>(ends),
                           {2 * static_cast<std::int64_t>(parts.size()), 2});
  std::vector<AttentionPart> out;
  for (const RowParts& p : parts) {
    const auto row = 2 * static_cast<std::int64_t>(out.size());
    out.push_back({p.q,
                   p.k,
                   {cu.rows_between(row, row + 1).reshaped({2}), p.q.size()},
                   {cu.rows_between(row + 1, row + 2).reshaped({2}), p.k.size()}});
  }
  return out;
}

VisionBlock::VisionBlock(nn::Builder& b, const std::string& name, const VisionConfig& c, bool gated)
    : name_(name),
      config_(c),
      norm1_(b, name + ".input_layernorm", c.channels, c.eps),
      norm2_(b, name + ".post_attention_layernorm", c.channels, c.eps),
      query_(b, name + ".self_attn.q_proj", {c.channels, c.channels, false},
             LinearKind::vision_attention),
      key_(b, name + ".self_attn.k_proj", {c.channels, c.channels, false},
           LinearKind::vision_attention),
      value_(b, name + ".self_attn.v_proj", {c.channels, c.channels, false},
             LinearKind::vision_attention),
      output_(b, name + ".self_attn.o_proj", {c.channels, c.channels, false},
              LinearKind::vision_attention),
      fc1_(b, name + ".mlp.fc1", {c.feed_forward, c.channels, true}, LinearKind::vision_mlp),
      fc2_(b, name + ".mlp.fc2", {c.channels, c.feed_forward, true}, LinearKind::vision_mlp) {
  if (!gated) return;
  attention_gate_ = read_gate(b, name + ".gate_attn");
  mlp_gate_ = read_gate(b, name + ".gate_ffn");
}

Var VisionBlock::forward(Tape& t, const Var& x, std::span<const AttentionPart> parts) const {
  const std::int64_t heads = config_.heads;
  const std::int64_t size = config_.head_size();
  const std::array<const nn::Linear*, 3> query_key_value{&query_, &key_, &value_};
  const Var qkv = linear_group(t, norm1_(t, x), query_key_value);
  const Var attended =
      attention(t, {qkv, 0, heads}, {qkv, heads * size, heads}, {qkv, 2 * heads * size, heads},
                {.head_size = size, .scale = 1 / std::sqrt(static_cast<double>(size))}, parts);
  const auto mlp = [&](const Var& in, const nn::Linear::Epilogue& epilogue) {
    const Var wide = fc1_(t, norm2_(t, in), {.activation = ops::Activation::gelu_erf});
    return fc2_(t, wide, epilogue);
  };
  if (!attention_gate_) {
    const Var middle = output_(t, attended, {.residual = x});
    return mlp(middle, {.residual = middle, .last = true});
  }
  const Var middle = add_scaled(t, x, output_(t, attended, {.joins_residual = true}),
                                {.factor = *attention_gate_});
  return add_scaled(t, middle, mlp(middle, {.last = true, .joins_residual = true}),
                    {.factor = *mlp_gate_, .last = true});
}

// Where everything goes, on the device.
struct VisionEmbedding::Rows {
  std::int64_t all = 0;
  Tensor patches;                            // [P] of the patches of tiles in use
  Tensor class_rows, class_zero;             // [slots]
  Tensor pads;                               // none, if a tile needs no padding
  Tensor pre_tile, position, tile_position;  // [T] rows of the three tables
  Tensor is_patch;                           // [T] 1 or 0
};

VisionEmbedding::VisionEmbedding(nn::Builder& b, const std::string& name, const VisionConfig& c)
    : name_(name + ".patch_embedding"),
      config_(c),
      patch_(b, name + ".patch_embedding", {c.channels, c.patch_columns(), false},
             LinearKind::other, {c.channels, c.in_channels, c.patch_size, c.patch_size}),
      class_1C_(b.dense({name + ".class_embedding", {c.channels}, TensorRole::embedding},
                        {1, c.channels})),
      position_NC_(b.dense({name + ".gated_positional_embedding.embedding",
                            {c.tile_tokens(), c.channels},
                            TensorRole::embedding},
                           {c.tile_tokens(), c.channels})),
      position_gate_(read_gate(b, name + ".gated_positional_embedding.gate")),
      tile_position_MC_(table(b, name + ".gated_positional_embedding.tile_embedding.weight", c,
                              c.max_tiles * c.tile_tokens())),
      pre_tile_MC_(
          table(b, name + ".pre_tile_positional_embedding.embedding.weight", c, c.max_tiles)),
      pre_tile_gate_(read_gate(b, name + ".pre_tile_positional_embedding.gate")),
      norm_(b, name + ".layernorm_pre", c.channels, kOuterEps) {}

// x += factor * scale * table[rows].
void VisionEmbedding::add_table(Tape& t, const Tensor& table, const Tensor& rows, double factor,
                                const Tensor& scale, const Tensor& x) const {
  Arena::Scope scope(t.scratch());
  const Tensor part = t.scratch().allocate_like(x);
  t.backend().gather_rows(table, rows, part);
  t.backend().scale_rows(part, factor, scale, {x, true});
}

// The order of the additions is the reference's: in 16 bits it shows.
Var VisionEmbedding::embed(Tape& t, const Var& pixels, const Rows& rows) const {
  const Tensor x = t.allocate({rows.all, config_.channels}, class_1C_.dtype);
  t.backend().fill(x, 0);
  t.backend().scatter_rows(patch_(t, pixels).value, rows.patches, x);
  add_table(t, pre_tile_MC_, rows.pre_tile, pre_tile_gate_, rows.is_patch, x);
  {
    Arena::Scope scope(t.scratch());
    const Tensor classes =
        t.scratch().allocate({rows.class_rows.dim(0), config_.channels}, x.dtype);
    t.backend().gather_rows(class_1C_, rows.class_zero, classes);
    t.backend().scatter_rows(classes, rows.class_rows, x);
  }
  add_table(t, position_NC_, rows.position, 1 - position_gate_, {}, x);
  add_table(t, tile_position_MC_, rows.tile_position, position_gate_, {}, x);
  const Var y = norm_(t, t.input(x));
  if (rows.pads) {
    Arena::Scope scope(t.scratch());
    const Tensor zero = t.scratch().allocate({rows.pads.dim(0), config_.channels}, x.dtype);
    t.backend().fill(zero, 0);
    t.backend().scatter_rows(zero, rows.pads, y.value);
  }
  return convert(t, y, nn::residual_type(y.value.dtype));
}

StepVar VisionEmbedding::forward(SegmentTape& tape, StepVar pixels,
                                 const std::vector<ImageRows>& images) const {
  const std::int64_t tokens = config_.tile_tokens();
  Indices patches, class_rows, pads, pre_tile, position, tile_position;
  std::vector<float> is_patch;
  for (const ImageRows& image : images) {
    for (std::int64_t tile = 0; tile < config_.max_tiles; ++tile) {
      const std::int64_t entry = image.ratio * config_.max_tiles + tile;
      const std::int64_t begin = image.begin + tile * tokens;
      class_rows.push_back(index(begin));
      for (std::int64_t token = 0; token < tokens; ++token) {
        if (token > 0 && tile < image.tiles) patches.push_back(index(begin + token));
        pre_tile.push_back(index(entry));
        position.push_back(index(token));
        tile_position.push_back(index(entry * tokens + token));
        is_patch.push_back(token > 0 ? 1.0f : 0.0f);
      }
    }
    // Padding rows become zero at the end; what is added to them does not matter.
    for (auto row = static_cast<std::int64_t>(position.size());
         row < image.begin + rows_of_an_image(config_); ++row) {
      pads.push_back(index(row));
      for (Indices* table : {&pre_tile, &position, &tile_position}) table->push_back(0);
      is_patch.push_back(0);
    }
  }
  Rows rows;
  rows.all = static_cast<std::int64_t>(position.size());
  rows.patches = upload_indices(tape, patches);
  rows.class_rows = upload_indices(tape, class_rows);
  rows.class_zero = upload_indices(tape, Indices(class_rows.size(), 0));
  if (!pads.empty()) rows.pads = upload_indices(tape, pads);
  rows.pre_tile = upload_indices(tape, pre_tile);
  rows.position = upload_indices(tape, position);
  rows.tile_position = upload_indices(tape, tile_position);
  rows.is_patch = upload_factors(tape, is_patch, class_1C_.dtype);
  return tape.run(name_, {std::move(pixels)},
                  [this, rows](Tape& t, std::span<const Var> in) { return embed(t, in[0], rows); });
}

VisionTower::VisionTower(nn::Builder& b, const std::string& name, const VisionConfig& c)
    : name_(name),
      config_(c),
      embedding_(b, name, c),
      norm_([&] {
        for (std::int64_t i = 0; i < c.layers; ++i) {
          local_.emplace_back(b, name + ".transformer.layers." + std::to_string(i), c, false);
        }
        for (std::int64_t i = 0; i < c.global_layers; ++i) {
          global_.emplace_back(b, name + ".global_transformer.layers." + std::to_string(i), c,
                               true);
        }
        return nn::LayerNorm(b, name + ".layernorm_post", c.channels, kOuterEps);
      }()),
      post_tile_MC_(
          table(b, name + ".post_tile_positional_embedding.embedding.weight", c, c.max_tiles)),
      post_tile_gate_(read_gate(b, name + ".post_tile_positional_embedding.gate")) {}

StepVar VisionTower::local(SegmentTape& tape, StepVar x, const std::vector<AttentionPart>& parts,
                           std::vector<StepVar>& features) const {
  features.resize(config_.feature_layers.size());
  const auto keep = [&](std::size_t layer) {
    for (std::size_t i = 0; i < features.size(); ++i) {
      if (config_.feature_layers[i] == static_cast<std::int64_t>(layer)) features[i] = x;
    }
  };
  for (std::size_t layer = 0; layer < local_.size(); ++layer) {
    if (config_.features == VisionFeatures::block_input) keep(layer);
    const VisionBlock& block = local_[layer];
    x = tape.run(block.name(), {x}, [&block, parts](Tape& t, std::span<const Var> in) {
      return block.forward(t, in[0], parts);
    });
    if (config_.features == VisionFeatures::block_output) keep(layer);
  }
  return x;
}

// The norm after the local transformer, and the second tile embedding: on padding too.
StepVar VisionTower::between(SegmentTape& tape, const StepVar& x,
                             const std::vector<ImageRows>& images) const {
  Indices entries;
  for (const ImageRows& image : images) {
    for (const std::int64_t rows : {config_.tile_tokens(), config_.tile_pads()}) {
      for (std::int64_t tile = 0; tile < config_.max_tiles; ++tile) {
        entries.insert(entries.end(), static_cast<std::size_t>(rows),
                       index(image.ratio * config_.max_tiles + tile));
      }
    }
  }
  const Tensor rows = upload_indices(tape, entries);
  return tape.run(name_ + ".layernorm_post", {x}, [this, rows](Tape& t, std::span<const Var> in) {
    const DType type = in[0].value.dtype;
    const Tensor tile = t.allocate(in[0].value.shape, post_tile_MC_.dtype);
    t.backend().gather_rows(post_tile_MC_, rows, tile);
    return add_scaled(t, convert(t, norm_(t, in[0]), type), convert(t, t.input(tile), type),
                      {.factor = post_tile_gate_, .last = true});
  });
}

StepVar VisionTower::forward(SegmentTape& tape, const PackedInput& input,
                             const std::vector<ImageRows>& images,
                             const std::vector<std::int32_t>& key_rows, const nn::Linear& projector,
                             DType compute) const {
  StepVar pixels = upload_patches(tape, input, config_.patch_columns(), compute);
  const auto parts = attention_parts(tape, vision_parts(images, config_));
  std::vector<StepVar> features;
  StepVar x = local(tape, embedding_.forward(tape, std::move(pixels), images), parts, features);
  x = between(tape, x, images);
  // The last block has hardly a row to leave out: unused slots are keys of the text before a
  // picture (cross_layout), and padding is 28 rows of 6,432, whose keys and values its tokens
  // attend to.
  for (const VisionBlock& block : global_) {
    x = tape.run(block.name(), {x}, [&block, parts](Tape& t, std::span<const Var> in) {
      return block.forward(t, in[0], parts);
    });
  }
  const Tensor rows = upload_indices(tape, key_rows);
  features.insert(features.begin(), x);
  return tape.run("model.multi_modal_projector", features,
                  [rows, &projector, compute](Tape& t, std::span<const Var> in) {
                    std::vector<Var> chosen;
                    for (const Var& v : in)
                      chosen.push_back(convert(t, gather_rows(t, v, rows), compute));
                    const Var joined =
                        join_interleaved(t, chosen.front(), std::span(chosen).subspan(1));
                    return projector(t, joined, {.last = true});
                  });
}

}  // namespace medvqa::models::mllama
