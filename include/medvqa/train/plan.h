// What a configuration needs of a device, without weights, data or the device itself.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "medvqa/train/policy.h"

namespace medvqa::train {

struct Device {
  std::string name;
  std::size_t capacity = 0;  // bytes
  std::size_t usable = 0;    // of these, what `train` would take
  bool built_in = true;      // false: figures are estimates
  ops::DeviceTraits traits;
};

// "" is the machine one sits at; else t4, a100-40, a100-80, h100, h200 or a number of bytes.
// UserError(ExitCode::usage) lists them.
Device find_device(const std::string& name, const Config& config);

struct ModulePart {
  std::string name;  // "vision", "merger", "embedding", "decoder", "head"
  std::int64_t parameters = 0;
  std::int64_t trainable = 0;
};

struct Plan {
  Device device;
  DType compute = DType::f32;
  MemoryPlan memory;                   // with the seconds of an optimizer step
  std::vector<MemoryPlan> candidates;  // on a GPU: all that were compared, likewise
  std::size_t host = 0;  // beside the arenas, on a CPU: batches prepared ahead and the program
  std::vector<std::pair<autograd::Recompute, std::size_t>> policies;  // total bytes of each
  std::vector<ModulePart> modules;
  double passes = 0;                     // of one optimizer step
  std::int64_t tokens = 0, patches = 0;  // of one worst sample

  // Bytes the device gives; a CPU's pass memory is its own.
  std::size_t total() const {
    return memory.sizes.total() + host + (device.traits.own_memory ? 0 : memory.sizes.host);
  }
  bool fits() const { return total() <= device.capacity; }
};

// The worst micro-batch: train.batch_size samples of data.max_length tokens, each with an image of
// max_pixels pixels.
Plan make_plan(const Config& config, const std::string& device);

nlohmann::json to_json(const Plan& plan);
std::string to_table(const Plan& plan);

// Up to three changes of the configuration that make it fit, cheapest first, as
// "train.batch_size=1 (1.2 GiB)"; empty if none of the known ones does.
std::vector<std::string> changes_that_fit(const Config& config, const std::string& device);

}  // namespace medvqa::train
