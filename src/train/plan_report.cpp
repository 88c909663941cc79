// A plan as JSON and as a table.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "medvqa/train/plan.h"

namespace medvqa::train {

namespace {

double gib(std::size_t bytes) {
  return static_cast<double>(bytes) / static_cast<double>(std::size_t{1} << 30);
}

nlohmann::json policy_json(const MemoryPolicy& p) {
  return {{"recompute", name_of(p.recompute)},
          {"weights", name_of(p.dequantize)},
          {"embedding", name_of(p.embedding)},
          {"recompute_points", name_of(p.points)},
          {"samples_per_pass", p.samples_per_pass}};
}

// The fastest of those that fit, and the smallest of all; null on a CPU.
const MemoryPlan* fastest(const Plan& plan) {
  const MemoryPlan* best = nullptr;
  for (const MemoryPlan& c : plan.candidates) {
    if (c.sizes.total() > plan.device.usable) continue;
    if (best == nullptr || c.seconds < best->seconds) best = &c;
  }
  return best;
}
const MemoryPlan* smallest(const Plan& plan) {
  const auto least = std::min_element(
      plan.candidates.begin(), plan.candidates.end(),
      [](const MemoryPlan& a, const MemoryPlan& b) { return a.sizes.total() < b.sizes.total(); });
  return least == plan.candidates.end() ? nullptr : &*least;
}

// What was weighed against the chosen policy, and why it was chosen.
std::string comparison(const Plan& plan) {
  std::string t;
  const MemoryPlan* quick = fastest(plan);
  if (quick != nullptr) {
    t += fmt::format(
        "estimated {:.1f} s an optimizer step; the fastest that fits: {:.1f} s in {:.3f} GiB "
        "({})\n"
        "of those within {:.0f} % of the fastest the one with the least memory is taken: room for "
        "longer samples\nand for a neighbour, at a price one would not notice; "
        "train.recompute and train.offload choose otherwise\n",
        plan.memory.seconds, quick->seconds, gib(quick->sizes.total()), in_words(quick->policy),
        100 * kUnnoticed);
  }
  const MemoryPlan* least = smallest(plan);
  if (least != nullptr && least->sizes.total() < plan.memory.sizes.total()) {
    t += fmt::format("the least memory: {:.3f} GiB, {:.1f} s ({})\n", gib(least->sizes.total()),
                     least->seconds, in_words(least->policy));
  }
  return t;
}

std::string module_table(const Plan& plan) {
  std::string t = fmt::format("{:<12} {:>16} {:>14}\n", "module", "parameters", "trainable");
  for (const ModulePart& m : plan.modules) {
    t += fmt::format("{:<12} {:>16} {:>14}\n", m.name, m.parameters, m.trainable);
  }
  t += fmt::format("{:<12} {:>16} {:>14}\n\n", "all", plan.memory.parameters.frozen,
                   plan.memory.parameters.trainable);
  return t;
}

std::string memory_table(const Plan& plan) {
  const ArenaSizes& s = plan.memory.sizes;
  const std::array<std::pair<const char*, std::size_t>, 7> rows{{{"weights", s.weights},
                                                                 {"adapters", s.adapters},
                                                                 {"step", s.step},
                                                                 {"block", s.block},
                                                                 {"scratch", s.scratch},
                                                                 {"host", plan.host},
                                                                 {"total", plan.total()}}};
  std::string t = fmt::format("{:<12} {:>10}\n", "memory", "GiB");
  for (const auto& row : rows) t += fmt::format("{:<12} {:>10.3f}\n", row.first, gib(row.second));
  if (s.host > 0) {
    t += fmt::format("{}{:.3f} GiB of page-locked host memory\n",
                     plan.device.traits.own_memory ? "and " : "of these ", gib(s.host));
  }
  return t;
}

}  // namespace

nlohmann::json to_json(const Plan& plan) {
  const MemoryPlan& m = plan.memory;
  const ArenaSizes& s = m.sizes;
  nlohmann::json j{
      {"parameters", m.parameters.frozen},
      {"trainable_parameters", m.parameters.trainable},
      {"memory",
       {{"weights", s.weights},
        {"adapters", s.adapters},
        {"step", s.step},
        {"block", s.block},
        {"scratch", s.scratch},
        {"host", plan.host},
        {"total", plan.total()}}},
      {"host_memory", s.host},
      {"device", plan.device.name},
      {"capacity", plan.device.capacity},
      {"fits", plan.fits()},
      {"estimate", !plan.device.built_in},
      {"policy", policy_json(m.policy)},
      {"flops_per_step",
       {{"linear", m.operations.linear * plan.passes},
        {"attention", m.operations.attention * plan.passes}}},
      {"worst_sample", {{"tokens", plan.tokens}, {"patches", plan.patches}}},
  };
  j["policy"]["compute"] = medvqa::name_of(plan.compute);
  for (const auto& p : plan.policies) j["policies"][name_of(p.first)] = p.second;
  for (const ModulePart& p : plan.modules) {
    j["modules"][p.name] = {{"parameters", p.parameters}, {"trainable", p.trainable}};
  }
  if (plan.candidates.empty()) return j;
  j["seconds_per_step"] = m.seconds;
  for (const MemoryPlan& c : plan.candidates) {
    nlohmann::json one = policy_json(c.policy);
    one["total"] = c.sizes.total();
    one["host_memory"] = c.sizes.host;
    one["seconds"] = c.seconds;
    one["fits"] = c.sizes.total() <= plan.device.usable;
    j["candidates"].push_back(std::move(one));
  }
  return j;
}

std::string to_table(const Plan& plan) {
  std::string t = module_table(plan) + memory_table(plan);
  t += fmt::format("\ndevice {}: {:.2f} GiB, compute {}{}\n", plan.device.name,
                   gib(plan.device.capacity), medvqa::name_of(plan.compute),
                   plan.device.built_in ? "" : "; an estimate: its kernels are not built in");
  t += fmt::format("worst sample: {} tokens, {} patches\n", plan.tokens, plan.patches);
  for (const auto& p : plan.policies) {
    t += fmt::format("recompute {:<16} {:>10.3f} GiB {}\n", name_of(p.first), gib(p.second),
                     p.second <= plan.device.capacity ? "fits" : "does not fit");
  }
  t += fmt::format("chosen: {}, {:.3f} GiB, which {}\n", in_words(plan.memory.policy),
                   gib(plan.total()), plan.fits() ? "fits" : "does not fit either");
  t += comparison(plan);
  t += fmt::format("one optimizer step: {:.2f} TFLOP in products, {:.2f} in attention\n",
                   plan.memory.operations.linear * plan.passes / 1e12,
                   plan.memory.operations.attention * plan.passes / 1e12);
  return t;
}

}  // namespace medvqa::train
