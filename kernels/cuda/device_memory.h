// The calls a backend makes to its device beside kernels: memory, transfers, the order of work.
// Two implementations: nvidia/device_memory.cu, and kernels/emulation/device_memory.cpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

struct CUstream_st;

namespace medvqa::cuda {

// What cudaStream_t is, without its header. The emulator has none: every call there has ended
// when it returns.
using Stream = CUstream_st*;

struct DeviceLimits {
  std::string name;
  int architecture = 0;  // 10 * major + minor of the compute capability
};

// 0 without a driver. UserError(ExitCode::device) if the driver is too old for this program.
int device_count();
// Toolkit, architectures built for and driver, in words.
std::string device_software();
// UserError(ExitCode::device) where there is no such device, or one older than the kernels.
DeviceLimits device_limits(int device);
// Of the device in use.
std::size_t free_device_memory();

Stream make_stream();
void destroy_stream(Stream stream);

// Aligned to 256 bytes. UserError(ExitCode::memory) when there is no room.
std::shared_ptr<void> allocate_device_memory(std::size_t bytes);

// Page-locked host memory. UserError(ExitCode::memory) when the system gives no more of it.
std::shared_ptr<void> allocate_pinned_memory(std::size_t bytes);

// Copies between page-locked and device memory on a stream of their own, beside the kernels of
// `compute`: in the order of the calls, each after everything queued on `compute` before it. The
// number a call returns names its copy; 0: it has ended.
class CopyQueue {
 public:
  explicit CopyQueue(Stream compute);
  ~CopyQueue();
  CopyQueue(const CopyQueue&) = delete;
  CopyQueue& operator=(const CopyQueue&) = delete;

  std::uint64_t to_host(void* host, const void* device, std::size_t bytes);
  std::uint64_t to_device(void* device, const void* host, std::size_t bytes);
  // What is queued on `compute` from now on runs after that copy and all before it.
  void await(std::uint64_t copy);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Copies from any host memory, in the order of `stream`: the bytes wait in page-locked buffers, so
// the host goes on at once unless it is two buffers ahead of the device.
class UploadQueue {
 public:
  explicit UploadQueue(Stream stream);
  ~UploadQueue();
  UploadQueue(const UploadQueue&) = delete;
  UploadQueue& operator=(const UploadQueue&) = delete;

  // The host memory may be reused on return.
  void copy(void* device, const void* host, std::size_t bytes);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The same without buffers: waits. For what is sent once.
void copy_to_device(void* device, const void* host, std::size_t bytes, Stream stream);
// Waits until everything queued before has ended and the bytes have come.
void copy_to_host(void* host, const void* device, std::size_t bytes, Stream stream);
void set_zero(void* device, std::size_t bytes, Stream stream);
void synchronise(Stream stream);

}  // namespace medvqa::cuda
