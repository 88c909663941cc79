#include "kernels/cuda/device_table.h"

#include <algorithm>

namespace medvqa::cuda {

DeviceTable::DeviceTable(std::size_t bytes)
    : capacity_(bytes), memory_(allocate_device_memory(bytes)) {}

const void* DeviceTable::send_bytes(std::span<const std::byte> bytes, Stream stream) {
  if (std::equal(bytes.begin(), bytes.end(), sent_.begin(), sent_.end())) return memory_.get();
  if (bytes.size() > capacity_) {
    synchronise(stream);  // kernels may still read the old one
    memory_ = allocate_device_memory(bytes.size());
    capacity_ = bytes.size();
  }
  copy_to_device(memory_.get(), bytes.data(), bytes.size(), stream);
  sent_.assign(bytes.begin(), bytes.end());
  return memory_.get();
}

}  // namespace medvqa::cuda
