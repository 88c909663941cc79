#include "medvqa/train/arenas.h"

namespace medvqa::train {

Arenas::Arenas()
    : weights_("weights"),
      adapters_("adapters"),
      step_("step"),
      block_("block"),
      scratch_("scratch"),
      host_("host") {}

Arenas::Arenas(ops::Backend& backend, const ArenaSizes& sizes)
    : memory_{backend.allocate_memory(sizes.weights), backend.allocate_memory(sizes.adapters),
              backend.allocate_memory(sizes.step),    backend.allocate_memory(sizes.block),
              backend.allocate_memory(sizes.scratch), backend.allocate_host_memory(sizes.host)},
      weights_("weights", memory_[0].get(), sizes.weights),
      adapters_("adapters", memory_[1].get(), sizes.adapters),
      step_("step", memory_[2].get(), sizes.step),
      block_("block", memory_[3].get(), sizes.block),
      scratch_("scratch", memory_[4].get(), sizes.scratch),
      host_("host", memory_[5].get(), sizes.host) {
  backend.use_scratch(scratch_);
}

ArenaSizes Arenas::peaks() const {
  return {weights_.peak(), adapters_.peak(), step_.peak(),
          block_.peak(),   scratch_.peak(),  host_.peak()};
}

}  // namespace medvqa::train
