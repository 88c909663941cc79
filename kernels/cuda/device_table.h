// A small table the host writes and kernels read. It is sent only when it differs from what the
// device has: from one step to the next it does not.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <type_traits>
#include <vector>

#include "kernels/cuda/device_memory.h"

namespace medvqa::cuda {

class DeviceTable {
 public:
  // Device memory for that many bytes; a larger table allocates once more.
  explicit DeviceTable(std::size_t bytes);

  // The device's copy of `entries`, in the stream's order.
  template <class Entry>
  const Entry* send(const std::vector<Entry>& entries, Stream stream) {
    // Padding would make equal tables differ.
    static_assert(std::has_unique_object_representations_v<Entry>);
    return static_cast<const Entry*>(send_bytes(std::as_bytes(std::span(entries)), stream));
  }

 private:
  const void* send_bytes(std::span<const std::byte> bytes, Stream stream);

  std::size_t capacity_;
  std::shared_ptr<void> memory_;
  std::vector<std::byte> sent_;
};

}  // namespace medvqa::cuda
