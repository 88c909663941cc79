// How much memory a run takes, found by running its real steps on a backend that computes nothing.
#pragma once

#include <span>
#include <vector>

#include "medvqa/train/run_inputs.h"
#include "medvqa/train/step.h"

namespace medvqa::train {

// What is kept and what is made again; the numbers a run computes do not depend on it.
struct MemoryPolicy {
  autograd::Recompute recompute = autograd::Recompute::all;
  nn::Dequantize dequantize = nn::Dequantize::per_use;
};

struct MemoryPlan {
  ArenaSizes sizes;
  MemoryPolicy policy;
  nn::ParameterCount parameters;
};

// What a run will do, as far as memory goes. Batches need no patches.
struct PlannedWork {
  std::vector<MicroBatch> train;     // forward and backward
  std::vector<MicroBatch> evaluate;  // forward
  std::vector<MicroBatch> logits;    // forward, all logits wanted
  bool train_logits = false;         // logits wanted in training, too
};

// The sizes every arena needs for all of `work`.
MemoryPlan plan_memory(const ops::DeviceTraits& device, const ModelInputs& model,
                       const MemoryPolicy& policy, const PlannedWork& work);

// The fastest that fits `capacity` bytes, the smallest if none does: recompute none,
// attention_saved or all, or the one asked for; for each, weights dequantised at load, per segment
// or per use.
MemoryPlan choose_policy(const ops::DeviceTraits& device, const ModelInputs& model,
                         std::optional<autograd::Recompute> asked, std::size_t capacity,
                         const PlannedWork& work);

// Leaves out every batch that asks for no more of anything than one that stays: memory grows with
// each of tokens, patches, samples, images, label rows and the longest of each.
std::vector<MicroBatch> largest(std::vector<MicroBatch> batches);

std::string name_of(autograd::Recompute policy);
std::string name_of(nn::Dequantize policy);

}  // namespace medvqa::train
