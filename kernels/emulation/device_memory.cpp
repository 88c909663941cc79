#include "kernels/cuda/device_memory.h"

#include <cstdlib>
#include <cstring>

#include "kernels/emulation/memory.h"
#include "medvqa/core/arena.h"

namespace medvqa::cuda {

DeviceLimits device_limits(int) {
  // bf16 products and asynchronous copies are emulated as well.
  return {.name = "cuda-emulated", .architecture = 80};
}

int device_count() {
  return 1;
}

std::string device_software() {
  return "CUDA kernels emulated";
}

std::size_t free_device_memory() {
  return std::size_t{1} << 30;
}

Stream make_stream() {
  return nullptr;
}
void destroy_stream(Stream) {}

std::shared_ptr<void> allocate_pinned_memory(std::size_t bytes) {
  const std::size_t rounded = (bytes / kArenaAlignment + 1) * kArenaAlignment;
  void* memory = std::aligned_alloc(kArenaAlignment, rounded);
  if (memory == nullptr) {
    throw UserError(ExitCode::memory,
                    "the system has no " + std::to_string(rounded) + " bytes of memory left");
  }
  return {memory, [](void* p) { std::free(p); }};
}

// Host memory as well, whose bounds the emulator knows.
std::shared_ptr<void> allocate_device_memory(std::size_t bytes) {
  std::shared_ptr<void> memory = allocate_pinned_memory(bytes);
  emulation::add_allocation(memory.get(), bytes);
  return {memory.get(), [memory](void* p) { emulation::remove_allocation(p); }};
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

struct UploadQueue::State {};
UploadQueue::UploadQueue(Stream) {}
UploadQueue::~UploadQueue() = default;

void UploadQueue::copy(void* device, const void* host, std::size_t bytes) {
  std::memcpy(device, host, bytes);
}

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
