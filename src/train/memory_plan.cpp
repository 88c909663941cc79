#include "medvqa/train/memory_plan.h"

#include <algorithm>
#include <array>

#include "medvqa/ops/dry_backend.h"

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
  ModelSettings settings = model.settings;
  settings.dequantize = policy.dequantize;
  AdaptedModel adapted(backend, arenas, *model.source, model.config, settings);
  PassOptions options;
  options.recompute = policy.recompute;
  options.keep_weights = policy.dequantize == nn::Dequantize::per_segment;
  options.dropout = model.settings.lora.dropout > 0;
  options.want_logits = work.train_logits;
  for (const MicroBatch& b : work.train) {
    accumulate_gradients(backend, arenas, adapted, std::span(&b, 1), options);
  }
  options.training = false;
  options.want_logits = false;
  for (const MicroBatch& b : work.evaluate) run_pass(backend, arenas, adapted, b, options);
  options.want_logits = true;
  for (const MicroBatch& b : work.logits) run_pass(backend, arenas, adapted, b, options);
  return {arenas.peaks(), policy, adapted.parameters()};
}

MemoryPlan choose_policy(const ops::DeviceTraits& device, const ModelInputs& model,
                         std::optional<autograd::Recompute> asked, std::size_t capacity,
                         const PlannedWork& work) {
  using autograd::Recompute;
  using nn::Dequantize;
  MemoryPlan plan;
  for (const Recompute r : {Recompute::none, Recompute::attention_saved, Recompute::all}) {
    if (asked && *asked != r) continue;
    for (const Dequantize d : {Dequantize::at_load, Dequantize::per_segment, Dequantize::per_use}) {
      // Without replays a segment's weights are as many as all weights.
      if (r == Recompute::none && d == Dequantize::per_segment) continue;
      plan = plan_memory(device, model, {r, d}, work);
      if (plan.sizes.total() <= capacity) return plan;
    }
  }
  return plan;
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
