// An array in emulated device memory, and what a launch reports.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cuda/device_memory.h"
#include "kernels/emulation/fault.h"

namespace medvqa::emulation {

template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(const std::vector<T>& values)
      : size_(values.size()), memory_(cuda::allocate_device_memory(size_ * sizeof(T))) {
    cuda::copy_to_device(memory_.get(), values.data(), size_ * sizeof(T), nullptr);
  }
  explicit DeviceArray(std::size_t size) : DeviceArray(std::vector<T>(size)) {}

  T* data() const { return static_cast<T*>(memory_.get()); }
  std::vector<T> values() const {
    std::vector<T> v(size_);
    cuda::copy_to_host(v.data(), memory_.get(), size_ * sizeof(T), nullptr);
    return v;
  }

 private:
  std::size_t size_;
  std::shared_ptr<void> memory_;
};

// The sentence of the fault that f ends with; empty if it ends well.
template <class F>
std::string fault_of(F&& f) {
  try {
    f();
  } catch (const EmulationFault& fault) {
    return fault.what();
  }
  return {};
}

}  // namespace medvqa::emulation
