// The five kinds of device memory a run uses, and the host memory it moves data through; one
// allocation each.
#pragma once

#include <cstddef>
#include <memory>

#include "medvqa/autograd/segment_tape.h"
#include "medvqa/core/arena.h"
#include "medvqa/ops/backend.h"

namespace medvqa::train {

struct ArenaSizes {
  std::size_t weights = 0;   // frozen weights
  std::size_t adapters = 0;  // LoRA in f32, its gradients, optimizer state
  std::size_t step = 0;      // recompute points, gradients between segments, positions, loss
  std::size_t block = 0;     // one segment's tape, or all of them
  std::size_t scratch = 0;   // temporaries of one operation, dequantised weights
  std::size_t host = 0;      // page-locked host memory: offloaded points, rows of the embedding
  // Of the device.
  std::size_t total() const { return weights + adapters + step + block + scratch; }
};

class Arenas {
 public:
  // Measures only: for a dry run.
  Arenas();
  Arenas(ops::Backend& backend, const ArenaSizes& sizes);
  // The backend takes its scratch from here for as long as this object lives.
  Arenas(const Arenas&) = delete;
  Arenas& operator=(const Arenas&) = delete;

  Arena& weights() { return weights_; }
  Arena& adapters() { return adapters_; }
  Arena& step() { return step_; }
  Arena& block() { return block_; }
  Arena& scratch() { return scratch_; }
  Arena& host() { return host_; }
  autograd::SegmentTape::Memory step_memory() { return {step_, block_, scratch_, &host_}; }
  ArenaSizes peaks() const;

 private:
  std::shared_ptr<void> memory_[6];
  Arena weights_, adapters_, step_, block_, scratch_, host_;
};

}  // namespace medvqa::train
