#include "medvqa/train/memory_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace medvqa::train {

namespace {

using Extent = std::array<std::int64_t, 7>;

Extent extent_of(const MicroBatch& b) {
  std::int64_t longest = 0;
  for (std::size_t n = 0; n + 1 < b.input.cu_seqlens.size(); ++n) {
    longest = std::max<std::int64_t>(longest, b.input.cu_seqlens[n + 1] - b.input.cu_seqlens[n]);
  }
  std::int64_t frame = 0;
  for (const models::PatchGrid& g : b.input.grids) frame = std::max(frame, g.h * g.w);
  return {b.input.patch_rows,
          b.input.tokens(),
          b.label_count(),
          longest,
          frame,
          b.input.samples(),
          static_cast<std::int64_t>(b.input.grids.size())};
}

bool covers(const Extent& a, const Extent& b) {
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i] < b[i]) return false;
  }
  return true;
}

}  // namespace

std::vector<MicroBatch> largest(std::vector<MicroBatch> batches) {
  std::stable_sort(batches.begin(), batches.end(), [](const MicroBatch& a, const MicroBatch& b) {
    return extent_of(a) > extent_of(b);
  });
  std::vector<MicroBatch> kept;
  std::vector<Extent> extents;
  for (MicroBatch& b : batches) {
    const Extent e = extent_of(b);
    const bool known =
        std::any_of(extents.begin(), extents.end(), [&](const Extent& k) { return covers(k, e); });
    if (known) continue;
    extents.push_back(e);
    kept.push_back(std::move(b));
  }
  return kept;
}

MemoryPlan plan_memory(const ops::DeviceTraits& device, const ModelInputs& model,
                       const MemoryPolicy& policy, const PlannedWork& work) {
  ops::DryBackend backend(device);
  Arenas arenas;
  backend.use_scratch(arenas.scratch());
  MemoryPlan plan;
  plan.policy = policy;
  ModelSettings settings = model.settings;
  apply(policy, settings);
  AdaptedModel adapted(backend, arenas, *model.source, model.config, settings);
  plan.policy.embedding = adapted.embedding();
  plan.parameters = adapted.parameters();
  PassOptions options;
  apply(policy, options);
  options.dropout = model.settings.lora.dropout > 0;
  options.want_logits = work.train_logits;
  const ops::OperationCount loaded = backend.count();
  const double began = backend.seconds();
  const auto measure = [&] {
    plan.operations = {.linear = backend.count().linear - loaded.linear,
                       .attention = backend.count().attention - loaded.attention};
    plan.seconds = backend.seconds() - began;
  };
  for (const MicroBatch& b : work.train) {
    accumulate_gradients(backend, arenas, adapted, std::span(&b, 1), options);
  }
  measure();
  options.training = false;
  options.want_logits = false;
  for (const MicroBatch& b : work.evaluate) run_pass(backend, arenas, adapted, b, options);
  options.want_logits = true;
  for (const MicroBatch& b : work.logits) run_pass(backend, arenas, adapted, b, options);
  if (work.train.empty()) measure();
  plan.sizes = arenas.peaks();
  return plan;
}

void apply(const MemoryPolicy& policy, ModelSettings& settings) {
  settings.dequantize = policy.dequantize;
  settings.embedding = policy.embedding;
}

void apply(const MemoryPolicy& policy, PassOptions& options) {
  options.recompute = policy.recompute;
  options.keep_weights = policy.dequantize == nn::Dequantize::per_segment;
  options.points = policy.points;
}

std::string name_of(ops::Place place) {
  return place == ops::Place::device ? "device" : "host";
}

std::string in_words(const MemoryPolicy& p) {
  std::string words = fmt::format("recompute {}, weights dequantised {}", name_of(p.recompute),
                                  name_of(p.dequantize));
  if (p.embedding == ops::Place::host) words += ", embedding table in host memory";
  if (p.points == ops::Place::host) words += ", recompute points in host memory";
  if (p.samples_per_pass > 0) words += fmt::format(", samples per pass {}", p.samples_per_pass);
  return words;
}

std::string name_of(nn::Dequantize policy) {
  switch (policy) {
    case nn::Dequantize::at_load:
      return "at_load";
    case nn::Dequantize::per_segment:
      return "per_segment";
    case nn::Dequantize::per_use:
      return "per_use";
  }
  return "";
}

std::string name_of(autograd::Recompute policy) {
  switch (policy) {
    case autograd::Recompute::all:
      return "all";
    case autograd::Recompute::attention_saved:
      return "attention_saved";
    case autograd::Recompute::none:
      return "none";
  }
  return "";
}

}  // namespace medvqa::train
