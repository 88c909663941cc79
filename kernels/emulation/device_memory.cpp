#include "kernels/cuda/device_memory.h"

#include <cstdlib>
#include <cstring>

#include "kernels/emulation/memory.h"
#include "medvqa/core/arena.h"

namespace medvqa::cuda {

DeviceLimits device_limits(int) {
  // The smallest device we know, so that what runs here runs everywhere: a T4's shared memory.
  return {.name = "cuda-emulated",
          .architecture = 80,
          .multiprocessors = 4,
          .shared_bytes = emulation::kSharedBytes,
          .memory_bytes = std::size_t{1} << 30};
}

int device_count() {
  return 1;
}

std::string device_software() {
  return "CUDA kernels emulated";
}

std::size_t free_device_memory() {
  return device_limits(0).memory_bytes;
}

Stream make_stream() {
  return nullptr;
}
void destroy_stream(Stream) {}

std::shared_ptr<void> allocate_device_memory(std::size_t bytes) {
  const std::size_t rounded = (bytes / kArenaAlignment + 1) * kArenaAlignment;
  void* memory = std::aligned_alloc(kArenaAlignment, rounded);
  if (memory == nullptr) {
    throw UserError(ExitCode::memory,
                    "the system has no " + std::to_string(rounded) + " bytes of memory left");
  }
  emulation::add_allocation(memory, bytes);
  return {memory, [](void* p) {
            emulation::remove_allocation(p);
            std::free(p);
          }};
}

std::shared_ptr<void> allocate_pinned_memory(std::size_t bytes) {
  const std::size_t rounded = (bytes / kArenaAlignment + 1) * kArenaAlignment;
  void* memory = std::aligned_alloc(kArenaAlignment, rounded);
  if (memory == nullptr) {
    throw UserError(ExitCode::memory,
                    "the system has no " + std::to_string(rounded) + " bytes of memory left");
  }
  return {memory, [](void* p) { std::free(p); }};
}

struct CopyQueue::State {};
CopyQueue::CopyQueue(Stream) {}
CopyQueue::~CopyQueue() = default;

std::uint64_t CopyQueue::to_host(void* host, const void* device, std::size_t bytes) {
  std::memcpy(host, device, bytes);
  return 0;
}

std::uint64_t CopyQueue::to_device(void* device, const void* host, std::size_t bytes) {
  std::memcpy(device, host, bytes);
  return 0;
}

void CopyQueue::await(std::uint64_t) {}

void copy_to_device(void* device, const void* host, std::size_t bytes, Stream) {
  std::memcpy(device, host, bytes);
}

void copy_to_host(void* host, const void* device, std::size_t bytes, Stream) {
  std::memcpy(host, device, bytes);
}

void set_zero(void* device, std::size_t bytes, Stream) {
  std::memset(device, 0, bytes);
}

void synchronise(Stream) {}

}  // namespace medvqa::cuda
