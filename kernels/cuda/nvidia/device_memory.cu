#include "kernels/cuda/device_memory.h"

#include <algorithm>
#include <array>

#include "machine.h"

namespace medvqa::cuda {

namespace {

// A version as CUDA numbers it: 1000 major + 10 minor.
std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

// Of the driver, 0 without one.
int driver_version() {
  int version = 0;
  return cudaDriverGetVersion(&version) == cudaSuccess ? version : 0;
}

}  // namespace

int device_count() {
  int count = 0;
  const cudaError_t found = cudaGetDeviceCount(&count);
  if (found == cudaSuccess) return count;
  (void)cudaGetLastError();
  const int driver = driver_version();
  // CUDA says so, too, where there is no driver at all.
  if (found == cudaErrorInsufficientDriver && driver != 0) {
    throw UserError(ExitCode::device, "the NVIDIA driver is for CUDA " + version_text(driver) +
                                          ", this program needs CUDA " +
                                          version_text(CUDART_VERSION) +
                                          "; update the driver or set device=cpu");
  }
  if (found == cudaErrorInsufficientDriver || found == cudaErrorNoDevice) return 0;
  throw UserError(ExitCode::device, std::string("the CUDA devices cannot be listed: ") +
                                        cudaGetErrorString(found) +
                                        "; look at nvidia-smi, or set device=cpu");
}

std::string device_software() {
  const int driver = driver_version();
  return "CUDA " + version_text(CUDART_VERSION) + " for sm_" MEDVQA_CUDA_BUILT_FOR ", " +
         (driver == 0 ? "no driver" : "driver for CUDA " + version_text(driver));
}

DeviceLimits device_limits(int device) {
  const int count = device_count();
  if (device < 0 || device >= count) {
    throw UserError(ExitCode::device, "there is no CUDA device " + std::to_string(device) + ", " +
                                          std::to_string(count) +
                                          " found; set device=cpu or look at nvidia-smi");
  }
  MEDVQA_CUDA_CALL(cudaSetDevice(device));
  cudaDeviceProp properties{};
  MEDVQA_CUDA_CALL(cudaGetDeviceProperties(&properties, device));
  constexpr int kOldest = 75;
  if (10 * properties.major + properties.minor < kOldest) {
    throw UserError(ExitCode::device, std::string(properties.name) + " has compute capability " +
                                          std::to_string(properties.major) + "." +
                                          std::to_string(properties.minor) +
                                          ", the kernels need 7.5 (T4) or newer; set device=cpu");
  }
  return {.name = properties.name, .architecture = 10 * properties.major + properties.minor};
}

Stream make_stream() {
  cudaStream_t stream = nullptr;
  MEDVQA_CUDA_CALL(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return stream;
}

void destroy_stream(Stream stream) {
  cudaStreamDestroy(stream);
}

std::size_t free_device_memory() {
  std::size_t left = 0, all = 0;
  MEDVQA_CUDA_CALL(cudaMemGetInfo(&left, &all));
  return left;
}

std::shared_ptr<void> allocate_device_memory(std::size_t bytes) {
  void* memory = nullptr;
  const cudaError_t status = cudaMalloc(&memory, bytes == 0 ? 1 : bytes);
  if (status == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();
    throw UserError(ExitCode::memory, "the device has no " + std::to_string(bytes) +
                                          " bytes of memory left; lower train.batch_size or "
                                          "data.image.max_pixels");
  }
  MEDVQA_CUDA_CALL(status);
  return {memory, [](void* p) { cudaFree(p); }};
}

std::shared_ptr<void> allocate_pinned_memory(std::size_t bytes) {
  void* memory = nullptr;
  const cudaError_t status = cudaHostAlloc(&memory, bytes == 0 ? 1 : bytes, cudaHostAllocDefault);
  if (status == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();
    throw UserError(ExitCode::memory, "the system gives no " + std::to_string(bytes) +
                                          " bytes of page-locked memory; set train.offload=none or "
                                          "lower train.batch_size");
  }
  MEDVQA_CUDA_CALL(status);
  return {memory, [](void* p) { cudaFreeHost(p); }};
}

// Copy n is marked by the event at n modulo their number. One whose event marks a later copy by
// now has ended before that one.
struct CopyQueue::State {
  static constexpr std::uint64_t kEvents = 64;
  cudaStream_t compute = nullptr;
  cudaStream_t stream = nullptr;
  cudaEvent_t queued = nullptr;
  std::array<cudaEvent_t, kEvents> ended{};
  std::uint64_t last = 0;

  cudaEvent_t& event(std::uint64_t copy) { return ended[copy % kEvents]; }

  std::uint64_t copy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
    if (bytes == 0) return 0;
    MEDVQA_CUDA_CALL(cudaEventRecord(queued, compute));
    MEDVQA_CUDA_CALL(cudaStreamWaitEvent(stream, queued, 0));
    MEDVQA_CUDA_CALL(cudaMemcpyAsync(to, from, bytes, kind, stream));
    ++last;
    MEDVQA_CUDA_CALL(cudaEventRecord(event(last), stream));
    return last;
  }
};

CopyQueue::CopyQueue(Stream compute) : state_(std::make_unique<State>()) {
  state_->compute = compute;
  state_->stream = make_stream();
  MEDVQA_CUDA_CALL(cudaEventCreateWithFlags(&state_->queued, cudaEventDisableTiming));
  for (cudaEvent_t& e : state_->ended) {
    MEDVQA_CUDA_CALL(cudaEventCreateWithFlags(&e, cudaEventDisableTiming));
  }
}

CopyQueue::~CopyQueue() {
  cudaStreamSynchronize(state_->stream);
  for (cudaEvent_t e : state_->ended) cudaEventDestroy(e);
  cudaEventDestroy(state_->queued);
  destroy_stream(state_->stream);
}

std::uint64_t CopyQueue::to_host(void* host, const void* device, std::size_t bytes) {
  return state_->copy(host, device, bytes, cudaMemcpyDeviceToHost);
}

std::uint64_t CopyQueue::to_device(void* device, const void* host, std::size_t bytes) {
  return state_->copy(device, host, bytes, cudaMemcpyHostToDevice);
}

void CopyQueue::await(std::uint64_t copy) {
  const std::uint64_t oldest = state_->last - std::min(state_->last, State::kEvents - 1);
  MEDVQA_CUDA_CALL(cudaStreamWaitEvent(state_->compute, state_->event(std::max(copy, oldest)), 0));
}

// Bytes are put one behind the other into a buffer until it is full; the event at its place marks
// when the device has read it.
struct UploadQueue::State {
  static constexpr std::size_t kBuffers = 2;
  static constexpr std::size_t kBytes = std::size_t{16} << 20;
  static constexpr std::size_t kAlignment = 256;
  Stream stream = nullptr;
  std::array<std::shared_ptr<void>, kBuffers> buffers;
  std::array<cudaEvent_t, kBuffers> read{};
  std::size_t current = 0;
  std::size_t used = 0;

  void turn() {
    MEDVQA_CUDA_CALL(cudaEventRecord(read[current], stream));
    current = (current + 1) % kBuffers;
    MEDVQA_CUDA_CALL(cudaEventSynchronize(read[current]));  // at once if it never was recorded
    used = 0;
  }
};

UploadQueue::UploadQueue(Stream stream) : state_(std::make_unique<State>()) {
  state_->stream = stream;
  for (std::shared_ptr<void>& b : state_->buffers) b = allocate_pinned_memory(State::kBytes);
  for (cudaEvent_t& e : state_->read) {
    MEDVQA_CUDA_CALL(cudaEventCreateWithFlags(&e, cudaEventDisableTiming));
  }
}

UploadQueue::~UploadQueue() {
  cudaStreamSynchronize(state_->stream);
  for (cudaEvent_t e : state_->read) cudaEventDestroy(e);
}

void UploadQueue::copy(void* device, const void* host, std::size_t bytes) {
  State& s = *state_;
  auto* to = static_cast<std::byte*>(device);
  const auto* from = static_cast<const std::byte*>(host);
  while (bytes > 0) {
    if (s.used == State::kBytes) s.turn();
    const std::size_t piece = std::min(bytes, State::kBytes - s.used);
    std::byte* staged = static_cast<std::byte*>(s.buffers[s.current].get()) + s.used;
    std::memcpy(staged, from, piece);
    MEDVQA_CUDA_CALL(cudaMemcpyAsync(to, staged, piece, cudaMemcpyHostToDevice, s.stream));
    const std::size_t end = s.used + piece;
    s.used = std::min(State::kBytes,
                      (end + State::kAlignment - 1) / State::kAlignment * State::kAlignment);
    to += piece;
    from += piece;
    bytes -= piece;
  }
}

void copy_to_device(void* device, const void* host, std::size_t bytes, Stream stream) {
  MEDVQA_CUDA_CALL(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream));
  // The host memory may be pinned, and then the copy has only been queued.
  MEDVQA_CUDA_CALL(cudaStreamSynchronize(stream));
}

void copy_to_host(void* host, const void* device, std::size_t bytes, Stream stream) {
  MEDVQA_CUDA_CALL(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream));
  MEDVQA_CUDA_CALL(cudaStreamSynchronize(stream));
}

void set_zero(void* device, std::size_t bytes, Stream stream) {
  MEDVQA_CUDA_CALL(cudaMemsetAsync(device, 0, bytes, stream));
}

void synchronise(Stream stream) {
  MEDVQA_CUDA_CALL(cudaStreamSynchronize(stream));
}

}  // namespace medvqa::cuda
