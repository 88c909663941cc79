#include "medvqa/train/adapted_model.h"

#include <cmath>

#include <nlohmann/json.hpp>

#include "medvqa/core/mt19937.h"
#include "medvqa/quant/adamw8bit.h"

namespace medvqa::train {

AdaptedModel::AdaptedModel(ops::Backend& backend, Arenas& arenas, const nn::WeightSource& source,
                           const nlohmann::json& config, const ModelSettings& settings)
    : head_rows_(settings.head_rows) {
  nn::Builder builder(backend, source, arenas.weights(), arenas.adapters(), settings.compute,
                      settings.lora, settings.quantize, settings.dequantize, settings.head_rows,
                      settings.embedding);
  model_ = models::build_model(config, builder);
  modules_ = builder.modules();
  count_ = builder.count();
  if (builder.host_tables()) embedding_ = ops::Place::host;
  for (const auto& module : modules_) {
    for (const auto& part : {std::pair(".lora_A", &module->a), std::pair(".lora_B", &module->b)}) {
      add_trained(arenas.adapters(), module->name + part.first, *part.second,
                  settings.eight_bit_optimizer);
    }
  }
  head_.value = model_->head_weight();
  if (!builder.trained_head()) return;
  head_ = *builder.trained_head();
  add_trained(arenas.adapters(), "head.weight", head_, settings.eight_bit_optimizer);
}

void AdaptedModel::add_trained(Arena& arena, const std::string& name, const nn::Parameter& p,
                               bool eight_bit) {
  const std::int64_t n = p.value.elements();
  ops::AdamWTensor t;
  t.value = p.value;
  t.grad = p.grad;
  const bool codes = eight_bit && n >= quant::kAdamWMin8BitElements;
  const DType type = codes ? DType::u8 : DType::f32;
  t.m = arena.allocate(p.value.shape, type);
  t.v = arena.allocate(p.value.shape, type);
  if (codes) {
    const std::int64_t blocks = (n + quant::kAdamWBlockSize - 1) / quant::kAdamWBlockSize;
    t.m_absmax = arena.allocate({blocks}, DType::f32);
    t.v_absmax = arena.allocate({blocks}, DType::f32);
  }
  trained_.push_back(t);
  gradients_.push_back(p.grad);
  names_.push_back(name);
}

void AdaptedModel::initialize_adapters(ops::Backend& backend, std::uint64_t seed) {
  TorchGenerator generator(seed);
  std::vector<float> values;
  for (const auto& m : modules_) {
    const auto a_elements = static_cast<std::size_t>(m->a.value.elements());
    const auto b_elements = static_cast<std::size_t>(m->b.value.elements());
    // PEFT's constructors draw A and B once before the values of A that stay are drawn.
    generator.skip(a_elements + b_elements);
    values.resize(a_elements);
    const auto bound = static_cast<float>(1 / std::sqrt(static_cast<double>(m->in)));
    generator.uniform(values, -bound, bound);
    backend.upload(values.data(), values.size() * sizeof(float), m->a.value);
    backend.fill(m->b.value, 0);
  }
}

void AdaptedModel::clear_optimizer(ops::Backend& backend) {
  for (const ops::AdamWTensor& t : trained_) {
    for (const Tensor& state : {t.m, t.v}) backend.fill(state, 0);
    if (!t.eight_bit()) continue;
    for (const Tensor& absmax : {t.m_absmax, t.v_absmax}) backend.fill(absmax, 0);
  }
}

void AdaptedModel::clear_gradients(ops::Backend& backend) {
  for (const Tensor& g : gradients_) backend.fill(g, 0);
}

}  // namespace medvqa::train
