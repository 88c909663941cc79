// What the update's kernels (adamw.cu) keep on the device between calls.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/cuda/device_table.h"
#include "medvqa/quant/adamw8bit.h"

namespace medvqa::cuda {

// Blocks of the first of global_norm's two kernels at most, each with one partial sum.
inline constexpr std::int64_t kNormBlocks = 512;

struct UpdateState {
  explicit UpdateState(Stream stream);

  DeviceTable trained;         // of adamw
  DeviceTable gradients;       // of global_norm
  quant::AdamWTables codes{};  // in device memory
  double* partial = nullptr;   // [kNormBlocks], in device memory

 private:
  std::shared_ptr<void> memory_;
};

}  // namespace medvqa::cuda
