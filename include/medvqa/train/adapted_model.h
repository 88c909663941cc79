// A model with its adapters and their optimizer state, in device memory.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

#include "medvqa/models/model.h"
#include "medvqa/train/arenas.h"

namespace medvqa::train {

struct ModelSettings {
  DType compute = DType::f32;
  nn::LoraOptions lora;
  nn::QuantizeOnLoad quantize = nn::QuantizeOnLoad::no;
  nn::Dequantize dequantize = nn::Dequantize::per_use;
  bool eight_bit_optimizer = true;
  ops::Place embedding = ops::Place::device;  // of the table; one that the head reads stays
  // The rows of the vocabulary head that are kept and trained; none: the whole head, frozen.
  std::vector<std::int32_t> head_rows = {};
};

class AdaptedModel {
 public:
  // Loads every weight `config`'s architecture asks `source` for. With measuring arenas and a dry
  // backend it only takes the sizes.
  AdaptedModel(ops::Backend& backend, Arenas& arenas, const nn::WeightSource& source,
               const nlohmann::json& config, const ModelSettings& settings);

  const models::Model& model() const { return *model_; }
  std::span<const std::shared_ptr<nn::LoraModule>> modules() const { return modules_; }
  const nn::ParameterCount& parameters() const { return count_; }
  // What the loss is computed with: [V, C], or the rows that are trained, with their gradient.
  const nn::Parameter& head() const { return head_; }
  // ModelSettings::head_rows.
  std::span<const std::int32_t> head_rows() const { return head_rows_; }
  // Two a module, A then B, in the order of modules(); then the head if it is trained.
  std::span<const ops::AdamWTensor> trained() const { return trained_; }
  std::span<const Tensor> gradients() const { return gradients_; }
  // Where the embedding table is.
  ops::Place embedding() const { return embedding_; }
  // "MODULE.lora_A", "MODULE.lora_B", "head.weight".
  std::span<const std::string> trained_names() const { return names_; }

  // A ~ U(-1/sqrt(in), 1/sqrt(in)) drawn as PEFT does from torch's generator, B = 0.
  void initialize_adapters(ops::Backend& backend, std::uint64_t seed);
  // Optimizer states as at the start: zero.
  void clear_optimizer(ops::Backend& backend);
  void clear_gradients(ops::Backend& backend);

 private:
  void add_trained(Arena& arena, const std::string& name, const nn::Parameter& p, bool eight_bit);

  std::vector<std::shared_ptr<nn::LoraModule>> modules_;
  nn::ParameterCount count_;
  std::unique_ptr<models::Model> model_;
  std::vector<ops::AdamWTensor> trained_;
  std::vector<Tensor> gradients_;
  std::vector<std::string> names_;
  nn::Parameter head_;
  std::vector<std::int32_t> head_rows_;
  ops::Place embedding_ = ops::Place::device;
};

}  // namespace medvqa::train
