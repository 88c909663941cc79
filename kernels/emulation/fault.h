// What the emulator throws from launch() when a kernel breaks a rule of the machine. The message
// names the kernel, the block, the thread, the rule, and where memory is concerned the allocation
// and the offset in it. Later launches work.
#pragma once

#include "medvqa/core/error.h"

namespace medvqa::emulation {

class EmulationFault : public DeviceError {
 public:
  using DeviceError::DeviceError;
};

}  // namespace medvqa::emulation
