// A whole Qwen2-VL of a few thousand parameters, two packed samples with an image each, and the
// training pass over them as train/step.cpp runs it.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "medvqa/models/model.h"
#include "medvqa/models/upload.h"
#include "tests/support/adapters.h"
#include "tests/support/memory_weights.h"
#include "tests/support/random_values.h"
#include "tests/support/test_device.h"

namespace medvqa::models::testing_models {

using medvqa::testing::MemoryWeights;
using medvqa::testing::TestDevice;
using Values = std::vector<double>;

inline constexpr std::int32_t kImage = 21;

inline nlohmann::json tiny_config(bool tied = false) {
  return {{"model_type", "qwen2_vl"},
          {"tie_word_embeddings", tied},
          {"image_token_id", kImage},
          {"vision_config",
           {{"depth", 1},
            {"embed_dim", 16},
            {"num_heads", 2},
            {"mlp_ratio", 2},
            {"patch_size", 2},
            {"temporal_patch_size", 2},
            {"spatial_merge_size", 2},
            {"in_channels", 3}}},
          {"text_config",
           {{"vocab_size", 24},
            {"hidden_size", 16},
            {"intermediate_size", 20},
            {"num_hidden_layers", 2},
            {"num_attention_heads", 2},
            {"num_key_value_heads", 1},
            {"rms_norm_eps", 1e-6},
            {"hidden_act", "silu"},
            {"rope_parameters", {{"rope_theta", 1e4}, {"mrope_section", {1, 1, 2}}}}}}};
}

struct Batch {
  PackedInput input;
  std::vector<std::int32_t> rows, labels;
};

inline std::vector<float> patches(const std::string& name, std::int64_t rows) {
  const Values v = medvqa::testing::random_values(name, rows * 24);
  return {v.begin(), v.end()};
}

inline Batch first_sample() {
  return {{{3, 20, kImage, kImage, kImage, kImage, 22, 5, 9},
           {0, 9},
           patches("one", 16),
           {{1, 4, 4}},
           16},
          {6, 7},
          {5, 9}};
}
inline Batch second_sample() {
  return {{{7, 1, 20, kImage, kImage, 22, 0}, {0, 7}, patches("two", 8), {{1, 2, 4}}, 8}, {5}, {0}};
}

// One sample after the other, without padding.
inline Batch packed(const Batch& a, const Batch& b) {
  Batch p = a;
  const auto shift = static_cast<std::int32_t>(a.input.tokens());
  p.input.ids.insert(p.input.ids.end(), b.input.ids.begin(), b.input.ids.end());
  p.input.cu_seqlens.push_back(shift + b.input.cu_seqlens.back());
  p.input.patches.insert(p.input.patches.end(), b.input.patches.begin(), b.input.patches.end());
  p.input.grids.insert(p.input.grids.end(), b.input.grids.begin(), b.input.grids.end());
  p.input.patch_rows += b.input.patch_rows;
  for (const std::int32_t r : b.rows) p.rows.push_back(shift + r);
  p.labels.insert(p.labels.end(), b.labels.begin(), b.labels.end());
  return p;
}

// Forward and, in training, backward; returns nll [R] in the step arena's memory of before.
inline Tensor run_pass(ops::Backend& backend, autograd::SegmentTape::Memory memory,
                       const Model& model, const Batch& batch, Arena& results,
                       autograd::SegmentTape::Options options, double loss_scale = 0.5) {
  Arena::Scope step(memory.step);
  Arena::Scope block(memory.block);
  autograd::SegmentTape tape(backend, memory, options);
  const auto count = static_cast<std::int64_t>(batch.rows.size());
  const DType compute = model.head_weight().dtype;
  const DType sums = accumulator_of(compute);
  const Tensor rows = upload(tape, std::span<const std::int32_t>(batch.rows), {count});
  const Tensor labels = upload(tape, std::span<const std::int32_t>(batch.labels), {count});
  const Tensor nll = results.allocate({count}, sums);
  const Tensor correct = results.allocate({count}, DType::i32);
  const autograd::StepVar hidden = model.forward(tape, batch.input);
  tape.finish(hidden, [&](autograd::Tape& t, const autograd::Var& x) {
    const autograd::Var y = model.final_norm(t, gather_rows(t, x, rows));
    Tensor dx;
    if (t.needs_grad(y)) dx = t.allocate(y.value.shape, y.value.dtype);
    backend.linear_cross_entropy({.x_RC = y.value,
                                  .weight_VC = model.head_weight(),
                                  .labels_R = labels,
                                  .loss_scale = loss_scale,
                                  .nll_R = nll,
                                  .correct_R = correct,
                                  .dx_RC = {dx, false}});
    return std::pair(y, dx);
  });
  return nll;
}

// The model on a CPU in one type.
class TinyModel {
 public:
  struct Options {
    DType compute = DType::f64;
    bool nf4 = false;
    bool tied = false;
    double dropout = 0;
    std::int64_t r = 1;
    nlohmann::json config = nullptr;             // null: Qwen2-VL
    std::optional<DType> stored = std::nullopt;  // of dense weights; none: the compute type
    std::function<double(const std::string&)> factor = {};  // of a weight's values
  };
  explicit TinyModel(const Options& o)
      : device_(o.compute, std::size_t{4} << 20),
        source_({.dtype = o.stored.value_or(o.compute), .nf4 = o.nf4, .factor = o.factor}),
        builder_(device_.backend(), source_, device_.tensors(), device_.tensors(), o.compute,
                 medvqa::testing::adapt_all(o.r, 1.25, o.dropout), nn::QuantizeOnLoad::no),
        model_(build_model(o.config.is_null() ? tiny_config(o.tied) : o.config, builder_)) {
    medvqa::testing::fill_adapters(device_, builder_.modules(), 0.3);
  }

  TestDevice& device() { return device_; }
  const Model& model() const { return *model_; }
  nn::Builder& builder() { return builder_; }

  Values run(const Batch& batch, autograd::SegmentTape::Options options, double loss_scale = 0.5) {
    Arena::Scope results(device_.tensors());
    return device_.get(run_pass(device_.backend(), device_.memory(), *model_, batch,
                                device_.tensors(), options, loss_scale));
  }
  std::vector<nn::Parameter> parameters() const {
    std::vector<nn::Parameter> all;
    for (const auto& m : builder_.modules()) {
      all.push_back(m->a);
      all.push_back(m->b);
    }
    return all;
  }
  std::vector<Values> gradients() {
    std::vector<Values> all;
    for (const nn::Parameter& p : parameters()) all.push_back(device_.get(p.grad));
    return all;
  }

 private:
  TestDevice device_;
  MemoryWeights source_;
  nn::Builder builder_;
  std::unique_ptr<Model> model_;
};

// Every adapter scalar's gradient against differences of the loss. A module's largest must exceed
// `least`: a gradient of zeros would agree with a loss that does not depend on it.
inline void expect_gradients_agree(TinyModel& tiny, const Batch& batch, double least) {
  TestDevice& d = tiny.device();
  tiny.run(batch, {});
  const std::vector<Values> gradients = tiny.gradients();
  const std::vector<nn::Parameter> parameters = tiny.parameters();
  std::size_t scalars = 0;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const Tensor& t = parameters[i].value;
    const Values at = d.get(t);
    const auto loss = [&](const Values& x) {
      d.set(t, x);
      double sum = 0;
      for (const double n : tiny.run(batch, {.training = false})) sum += 0.5 * n;
      return sum;
    };
    const std::string& name = tiny.builder().modules()[i / 2]->name;
    double largest = 0;
    for (const double g : gradients[i]) largest = std::max(largest, std::fabs(g));
    EXPECT_GT(largest, least) << name;
    // The loss bends more than a single operation: room for the step's fifth derivative.
    for (const auto& line :
         medvqa::testing::compare_with_differences(name, at, gradients[i], 20, loss)) {
      ADD_FAILURE() << line;
    }
    d.set(t, at);
    scalars += at.size();
  }
  EXPECT_EQ(scalars, static_cast<std::size_t>(tiny.builder().count().trainable));
}

}  // namespace medvqa::models::testing_models
