#include "kernels/cuda/device_memory.h"

#include <array>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <vector>

#include "kernels/emulation/block.h"
#include "kernels/emulation/memory.h"
#include "medvqa/core/arena.h"

namespace medvqa::cuda {

namespace {

// The second is a T4, as far as programs see one: it has no bf16 products.
const std::array<DeviceLimits, 2> kDevices{{{.name = "cuda-emulated", .architecture = 80},
                                            {.name = "cuda-emulated-sm75", .architecture = 75}}};

// A copy is made as late as it may be: when somebody awaits it. Who reads without awaiting it reads
// old bytes, and what is written too early is what the copy sends.
class LateCopies {
 public:
  LateCopies() { all().push_back(this); }
  ~LateCopies() {
    carry_out(last_);
    std::erase(all(), this);
  }
  LateCopies(const LateCopies&) = delete;
  LateCopies& operator=(const LateCopies&) = delete;

  std::uint64_t queue(void* to, const void* from, std::size_t bytes) {
    if (bytes == 0) return 0;
    waiting_.push_back({to, from, bytes, ++last_});
    return last_;
  }
  void carry_out(std::uint64_t last) {
    for (; !waiting_.empty() && waiting_.front().number <= last; waiting_.pop_front()) {
      std::memcpy(waiting_.front().to, waiting_.front().from, waiting_.front().bytes);
    }
  }
  // Freeing memory waits for the device.
  static void carry_out_all() {
    for (LateCopies* copies : all()) copies->carry_out(copies->last_);
  }

 private:
  struct Copy {
    void* to;
    const void* from;
    std::size_t bytes;
    std::uint64_t number;
  };
  static std::vector<LateCopies*>& all() {
    static std::vector<LateCopies*> copies;
    return copies;
  }

  std::deque<Copy> waiting_;
  std::uint64_t last_ = 0;
};

}  // namespace

DeviceLimits device_limits(int device) {
  if (device < 0 || device >= device_count()) {
    throw UserError(ExitCode::device, "there is no emulated device " + std::to_string(device));
  }
  const DeviceLimits& limits = kDevices[static_cast<std::size_t>(device)];
  emulation::use_architecture(limits.architecture);
  return limits;
}

int device_count() {
  return static_cast<int>(std::size(kDevices));
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
  return {memory, [](void* p) {
            LateCopies::carry_out_all();
            std::free(p);
          }};
}

// Host memory as well, whose bounds the emulator knows.
std::shared_ptr<void> allocate_device_memory(std::size_t bytes) {
  std::shared_ptr<void> memory = allocate_pinned_memory(bytes);
  emulation::add_allocation(memory.get(), bytes);
  return {memory.get(), [memory](void* p) { emulation::remove_allocation(p); }};
}

struct CopyQueue::State : LateCopies {};

CopyQueue::CopyQueue(Stream) : state_(std::make_unique<State>()) {}
CopyQueue::~CopyQueue() = default;

std::uint64_t CopyQueue::to_host(void* host, const void* device, std::size_t bytes) {
  return state_->queue(host, device, bytes);
}

std::uint64_t CopyQueue::to_device(void* device, const void* host, std::size_t bytes) {
  return state_->queue(device, host, bytes);
}

void CopyQueue::await(std::uint64_t copy) {
  state_->carry_out(copy);
}

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
