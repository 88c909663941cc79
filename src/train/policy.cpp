#include "medvqa/train/policy.h"

#include <algorithm>
#include <map>

namespace medvqa::train {

namespace {

using autograd::Recompute;
using nn::Dequantize;
using ops::Place;

std::vector<Place> places(Offload offload, bool own_memory) {
  if (offload == Offload::all) return {Place::host};
  if (offload == Offload::none || !own_memory) return {Place::device};
  return {Place::device, Place::host};
}

// What a policy's memory and time are judged by before it is planned in full.
PlannedWork sample_of(const PlannedWork& work) {
  const auto first = [](const std::vector<MicroBatch>& batches) {
    return std::vector<MicroBatch>(batches.begin(), batches.begin() + (batches.empty() ? 0 : 1));
  };
  return {first(work.train), first(work.evaluate), first(work.logits), work.train_logits};
}

// With the time of one sample.
MemoryPlan plan_sample(const ops::DeviceTraits& device, const ModelInputs& model,
                       const MemoryPolicy& policy, const PlannedWork& work) {
  MemoryPlan plan = plan_memory(device, model, policy, work);
  for (const auto* batches : {&work.train, &work.evaluate, &work.logits}) {
    if (batches->empty()) continue;
    plan.seconds /= static_cast<double>(batches->front().input.samples());
    break;
  }
  return plan;
}

// The first that fits, the smallest if none does: they are in the order of speed.
PolicyChoice first_that_fits(const ops::DeviceTraits& device, const ModelInputs& model,
                             const PolicyRequest& request, std::size_t capacity,
                             const WorkOfPasses& work) {
  PolicyChoice choice;
  const PlannedWork all = work(request.samples_per_pass.value_or(request.batch_size));
  for (const MemoryPolicy& p : possible_policies(device, request)) {
    choice.plan = plan_memory(device, model, p, all);
    if (choice.plan.sizes.total() + choice.plan.sizes.host <= capacity) break;
  }
  return choice;
}

}  // namespace

std::vector<MemoryPolicy> possible_policies(const ops::DeviceTraits& device,
                                            const PolicyRequest& request) {
  std::vector<std::int64_t> passes{request.samples_per_pass.value_or(request.batch_size)};
  while (!request.samples_per_pass && device.own_memory && passes.back() > 1)
    passes.push_back((passes.back() + 1) / 2);
  const std::vector<Place> allowed = places(request.offload, device.own_memory);
  // What has no points cannot keep them on the host.
  const bool must_replay = request.offload == Offload::all && !request.recompute;
  std::vector<MemoryPolicy> policies;
  for (const Recompute r : {Recompute::none, Recompute::attention_saved, Recompute::all}) {
    if (request.recompute ? *request.recompute != r : must_replay && r == Recompute::none) continue;
    for (const Dequantize d : {Dequantize::at_load, Dequantize::per_segment, Dequantize::per_use}) {
      if (r == Recompute::none && d == Dequantize::per_segment) continue;
      for (const Place embedding : allowed) {
        for (const Place points : r == Recompute::none ? std::vector{Place::device} : allowed) {
          for (const std::int64_t n : passes) policies.push_back({r, d, embedding, points, n});
        }
      }
    }
  }
  return policies;
}

std::optional<std::size_t> best_of(const std::vector<MemoryPlan>& plans, std::size_t capacity) {
  std::vector<std::size_t> fitting;
  for (std::size_t i = 0; i < plans.size(); ++i) {
    if (plans[i].sizes.total() <= capacity) fitting.push_back(i);
  }
  if (fitting.empty()) return {};
  const auto faster = [&](std::size_t a, std::size_t b) {
    return plans[a].seconds < plans[b].seconds;
  };
  const double fastest = plans[*std::min_element(fitting.begin(), fitting.end(), faster)].seconds;
  std::optional<std::size_t> best;
  for (const std::size_t i : fitting) {
    if (plans[i].seconds > fastest * (1 + kUnnoticed)) continue;
    const auto better = [&](std::size_t other) {
      const std::size_t bytes = plans[i].sizes.total();
      const std::size_t least = plans[other].sizes.total();
      return bytes < least || (bytes == least && faster(i, other));
    };
    if (!best || better(*best)) best = i;
  }
  return best;
}

PolicyChoice choose_policy(const ops::DeviceTraits& device, const ModelInputs& model,
                           const PolicyRequest& request, std::size_t capacity,
                           const WorkOfPasses& work) {
  if (!device.own_memory) return first_that_fits(device, model, request, capacity, work);
  PolicyChoice choice;
  std::map<std::int64_t, PlannedWork> samples;
  for (const MemoryPolicy& p : possible_policies(device, request)) {
    const auto known = samples.find(p.samples_per_pass);
    const PlannedWork& sample =
        known != samples.end()
            ? known->second
            : samples.emplace(p.samples_per_pass, sample_of(work(p.samples_per_pass)))
                  .first->second;
    const MemoryPlan plan = plan_sample(device, model, p, sample);
    // An embedding that the head reads is on the device, whatever was asked for.
    const bool possible =
        plan.policy.embedding == p.embedding && plan.sizes.host <= request.host_capacity;
    if (possible || request.offload == Offload::all) choice.compared.push_back(plan);
  }
  std::vector<MemoryPlan> left = choice.compared;
  const auto in_full = [&](const MemoryPlan& sampled) {
    MemoryPlan plan =
        plan_memory(device, model, sampled.policy, work(sampled.policy.samples_per_pass));
    plan.seconds = sampled.seconds;
    return plan;
  };
  while (const auto best = best_of(left, capacity)) {
    choice.plan = in_full(left[*best]);
    if (choice.plan.sizes.total() <= capacity) return choice;
    left.erase(left.begin() + static_cast<std::ptrdiff_t>(*best));
  }
  const auto smaller = [](const MemoryPlan& a, const MemoryPlan& b) {
    return a.sizes.total() < b.sizes.total();
  };
  choice.plan = in_full(*std::min_element(choice.compared.begin(), choice.compared.end(), smaller));
  return choice;
}

}  // namespace medvqa::train
