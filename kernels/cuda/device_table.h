// A small table the host writes and kernels read. It is sent only when it differs from what the
// device has: from one step to the next it does not.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "kernels/cuda/device_memory.h"

namespace medvqa::cuda {

class DeviceTable {
 public:
  // Device memory for that many bytes; a larger table allocates once more.
  explicit DeviceTable(std::size_t bytes);

  // The device's copy of `entries`, in the stream's order. Entry must have no padding.
  template <class Entry>
  const Entry* send(std::span<const Entry> entries, Stream stream) {
    return static_cast<const Entry*>(send_bytes(std::as_bytes(entries), stream));
  }

 private:
  const void* send_bytes(std::span<const std::byte> bytes, Stream stream);

  std::size_t capacity_;
  std::shared_ptr<void> memory_;
  std::vector<std::byte> sent_;
};

}  // namespace medvqa::cuda
