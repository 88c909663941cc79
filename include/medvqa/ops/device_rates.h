// How fast known devices are over a whole training step, to compare plans with: sustained, not
// peak, and no promise for any single operation.
#pragma once

#include <string>

namespace medvqa::ops {

struct DeviceRates {
  double operations = 0;  // floating-point operations a second, in 16 bits
  double memory = 0;      // bytes a second, device memory
  double link = 0;        // bytes a second, each way between page-locked host memory and the device
};

// By the driver's name ("Tesla T4", "NVIDIA H100 80GB HBM3") or ours ("t4", "a100-40"); an unknown
// device counts as an A100.
DeviceRates rates_of(const std::string& device);

}  // namespace medvqa::ops
