// What must hold of every architecture, whatever it computes. Options name the model.
#pragma once

#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "medvqa/ops/dry_backend.h"
#include "tests/models/tiny_qwen2_vl.h"

namespace medvqa::models::testing_models {

using autograd::Recompute;

inline TinyModel::Options with_config(nlohmann::json config, TinyModel::Options options = {}) {
  options.config = std::move(config);
  return options;
}

// Recomputing and keeping, of activations and of dequantised weights, give the same bits.
inline void expect_policies_agree(TinyModel::Options options, const Batch& batch) {
  options.nf4 = true;
  options.dropout = 0.2;
  for (const DType type : {DType::f64, DType::f32, DType::bf16, DType::f16}) {
    options.compute = type;
    const auto outcome = [&](Recompute r, bool keep) {
      TinyModel tiny(options);
      std::vector<Values> all{tiny.run(
          batch, {.recompute = r, .keep_weights = keep, .random_key = 11, .dropout = true})};
      for (Values& g : tiny.gradients()) all.push_back(std::move(g));
      return all;
    };
    const auto expected = outcome(Recompute::none, false);
    for (const bool keep : {false, true}) {
      for (const Recompute r : {Recompute::all, Recompute::attention_saved, Recompute::none}) {
        EXPECT_EQ(outcome(r, keep), expected) << name_of(type) << static_cast<int>(r);
      }
    }
  }
}

inline void expect_forward_only_agrees(TinyModel::Options options, const Batch& batch) {
  options.compute = DType::f32;
  TinyModel tiny(options);
  const Values nll = tiny.run(batch, {.training = false});
  for (const Values& g : tiny.gradients()) EXPECT_EQ(g, Values(g.size(), 0.0));
  EXPECT_EQ(tiny.run(batch, {}), nll);
}

struct Peaks {
  std::size_t step, block, scratch, tensors;
  bool operator==(const Peaks&) const = default;
};

inline Peaks dry_peaks(const TinyModel::Options& options, const Batch& batch,
                       const ops::DeviceTraits& traits, autograd::SegmentTape::Options pass) {
  nn::DescribedWeights::Options described;
  described.nf4 = options.nf4;
  described.nested = false;
  const nn::DescribedWeights source(described);
  ops::DryBackend dry(traits);
  Arena tensors("tensors"), step("step"), block("block"), scratch("scratch");
  dry.use_scratch(scratch);
  nn::Builder builder(dry, source, tensors, tensors, options.compute,
                      medvqa::testing::adapt_all(options.r, 1.25, options.dropout),
                      nn::QuantizeOnLoad::no);
  const auto model =
      build_model(options.config.is_null() ? tiny_config(options.tied) : options.config, builder);
  Batch sizes = batch;
  sizes.input.patches.clear();  // a plan has no pixels
  run_pass(dry, {step, block, scratch}, *model, sizes, tensors, pass);
  return {step.peak(), block.peak(), scratch.peak(), tensors.peak()};
}

// The dry run knows the memory to the byte.
inline void expect_the_plan_is_exact(TinyModel::Options options, const Batch& batch) {
  options.nf4 = true;
  options.dropout = 0.2;
  for (const DType type : {DType::f64, DType::f32, DType::bf16, DType::f16}) {
    options.compute = type;
    for (const Recompute r : {Recompute::all, Recompute::attention_saved, Recompute::none}) {
      const autograd::SegmentTape::Options pass{.recompute = r, .dropout = true};
      TinyModel real(options);
      real.run(batch, pass);
      TestDevice& d = real.device();
      const Peaks found{d.step().peak(), d.block().peak(), d.scratch().peak(), d.tensors().peak()};
      const Peaks planned = dry_peaks(options, batch, d.backend().traits(), pass);
      EXPECT_EQ(planned, found) << name_of(type) << static_cast<int>(r) << " step " << planned.step
                                << " " << found.step << " block " << planned.block << " "
                                << found.block << " scratch " << planned.scratch << " "
                                << found.scratch;
    }
  }
}

// Losses and gradients of samples packed, and of one at a time.
inline void expect_packed_is_separate(TinyModel::Options options,
                                      const std::vector<Batch>& samples) {
  Batch all = samples.front();
  for (std::size_t i = 1; i < samples.size(); ++i) all = packed(all, samples[i]);
  for (const DType type : {DType::f64, DType::f32}) {
    options.compute = type;
    TinyModel together(options), apart(options);
    const Values nll = together.run(all, {});
    Values separate;
    for (const Batch& b : samples) {
      for (const double n : apart.run(b, {})) separate.push_back(n);
    }
    const double allowed = 4096 * roundoff(type);  // the operations of a few layers
    ASSERT_EQ(nll.size(), separate.size());
    for (std::size_t i = 0; i < nll.size(); ++i) EXPECT_NEAR(nll[i], separate[i], allowed);
    const auto a = together.gradients(), b = apart.gradients();
    for (std::size_t i = 0; i < a.size(); ++i) {
      for (std::size_t e = 0; e < a[i].size(); ++e) ASSERT_NEAR(a[i][e], b[i][e], allowed);
    }
  }
}

// What the second sample says must not reach the first: changing its pixels and words leaves the
// first's losses alone.
inline void expect_samples_apart(const TinyModel::Options& options, const Batch& first,
                                 const Batch& second) {
  TinyModel tiny(options);
  const Values before = tiny.run(packed(first, second), {.training = false});
  Batch other = second;
  for (float& v : other.input.patches) v = -v;
  other.input.ids[0] = 11;
  const Values after = tiny.run(packed(first, other), {.training = false});
  const std::size_t own = first.rows.size();
  for (std::size_t i = 0; i < own; ++i) EXPECT_EQ(before[i], after[i]);
  EXPECT_NE(before[own], after[own]);
}

// Of a model in memory: parameters, bytes, and what it asked its weights for.
struct ModelSize {
  std::int64_t frozen, trainable;
  std::size_t weights, adapters, tensors;
};

inline ModelSize size_of_model(const nlohmann::json& config, bool nf4) {
  nn::DescribedWeights::Options options;
  options.nf4 = nf4;
  const nn::DescribedWeights source(options);
  ops::DryBackend dry(ops::DeviceTraits{.name = "dry"});
  Arena weights("weights"), adapters("adapters");
  nn::Builder builder(dry, source, weights, adapters, DType::bf16,
                      medvqa::testing::adapt_all(16, 1), nn::QuantizeOnLoad::no);
  build_model(config, builder);
  return {builder.count().frozen, builder.count().trainable, weights.peak(), adapters.peak(),
          source.requests().size()};
}

}  // namespace medvqa::models::testing_models
