// How much memory a run takes, found by running its real steps on a backend that computes nothing.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "medvqa/ops/dry_backend.h"
#include "medvqa/train/run_inputs.h"
#include "medvqa/train/step.h"

namespace medvqa::train {

// What is kept and what is made again, and where things lie; the numbers a run computes do not
// depend on it, but for the order of sums with samples_per_pass.
struct MemoryPolicy {
  autograd::Recompute recompute = autograd::Recompute::all;
  nn::Dequantize dequantize = nn::Dequantize::per_use;
  ops::Place embedding = ops::Place::device;  // of the table
  ops::Place points = ops::Place::device;     // of what a replay begins with
  // A micro-batch is run in passes of so many samples; 0: all at once. With 1 a run equals one
  // with data.packing=false, bit for bit.
  std::int64_t samples_per_pass = 0;
};

struct MemoryPlan {
  ArenaSizes sizes;
  MemoryPolicy policy;
  nn::ParameterCount parameters;
  // Of the work's training passes, or of its forward passes if it has none.
  ops::OperationCount operations = {};
  double seconds = 0;  // on the device, see ops::DryBackend; no estimate for a CPU
};

// What a run will do, as far as memory goes. Batches need no patches.
struct PlannedWork {
  std::vector<MicroBatch> train;     // forward and backward
  std::vector<MicroBatch> evaluate;  // forward
  std::vector<MicroBatch> logits;    // forward, all logits wanted
  bool train_logits = false;         // logits wanted in training, too
};

// The sizes every arena needs for all of `work`. The plan's policy says where the embedding really
// is: a head may need it on the device. samples_per_pass only is handed on.
MemoryPlan plan_memory(const ops::DeviceTraits& device, const ModelInputs& model,
                       const MemoryPolicy& policy, const PlannedWork& work);

// The policy's part of what a run is given.
void apply(const MemoryPolicy& policy, ModelSettings& settings);
void apply(const MemoryPolicy& policy, PassOptions& options);

// Leaves out every batch that asks for no more of anything than one that stays: memory grows with
// each of tokens, patches, samples, images, label rows and the longest of each.
std::vector<MicroBatch> largest(std::vector<MicroBatch> batches);

std::string name_of(autograd::Recompute policy);
std::string name_of(nn::Dequantize policy);
std::string name_of(ops::Place place);
std::string in_words(const MemoryPolicy& policy);

}  // namespace medvqa::train
