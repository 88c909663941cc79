// Which memory policy a run takes, of those that fit.
#pragma once

#include <functional>
#include <limits>
#include <optional>
#include <vector>

#include "medvqa/train/memory_plan.h"

namespace medvqa::train {

// What the user leaves open.
struct PolicyRequest {
  std::optional<autograd::Recompute> recompute = {};  // none: any
  Offload offload = Offload::automatic;
  std::int64_t batch_size = 1;  // samples of a micro-batch that may be run together
  // Of a run that is resumed: the order of its sums depends on it.
  std::optional<std::int64_t> samples_per_pass = {};
  // Page-locked memory the host can spare; a policy of Offload::automatic takes no more.
  std::size_t host_capacity = std::numeric_limits<std::size_t>::max();
};

// The work of a run whose passes have so many samples.
using WorkOfPasses = std::function<PlannedWork(std::int64_t samples_per_pass)>;

// Every policy the request allows on that device. On a device with memory of its own (a GPU):
//   recompute x weights dequantised at load, per segment or per use x embedding and points on the
//   device or the host x samples per pass: all, half, a quarter, ..., 1.
// Without replays there are no points, and a segment's weights are as many as all weights. On a CPU
// the host's memory is the device's: neither passes are split nor, unless the request says so,
// anything put there. The fastest come first, by and large.
std::vector<MemoryPolicy> possible_policies(const ops::DeviceTraits& device,
                                            const PolicyRequest& request);

// Slower than the fastest by no more than this, a policy is as good as it, and the least memory
// decides: room for longer samples and for a neighbour, at a price one would not notice.
inline constexpr double kUnnoticed = 0.10;

// Index of the plan to take, or nothing if none fits `capacity` bytes: of those that fit and are
// within kUnnoticed of the fastest of them, the one with the least memory; of equals the faster.
std::optional<std::size_t> best_of(const std::vector<MemoryPlan>& plans, std::size_t capacity);

struct PolicyChoice {
  MemoryPlan plan;  // the smallest where nothing fits
  // On a GPU: all that were compared, with the seconds of one sample's pass; the first training
  // and the first forward pass stand for all.
  std::vector<MemoryPlan> compared;
};

// On a GPU as best_of() says; on a CPU the first of possible_policies() that fits.
PolicyChoice choose_policy(const ops::DeviceTraits& device, const ModelInputs& model,
                           const PolicyRequest& request, std::size_t capacity,
                           const WorkOfPasses& work);

}  // namespace medvqa::train
