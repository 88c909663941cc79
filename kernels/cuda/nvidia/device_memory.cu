#include "kernels/cuda/device_memory.h"

#include "machine.h"

namespace medvqa::cuda {

DeviceLimits device_limits(int device) {
  int count = 0;
  const cudaError_t found = cudaGetDeviceCount(&count);
  if (found != cudaSuccess || device >= count) {
    throw UserError(ExitCode::device, "there is no CUDA device " + std::to_string(device) + " (" +
                                          std::to_string(count) +
                                          " found: " + cudaGetErrorString(found) +
                                          "); set device=cpu or look at nvidia-smi");
  }
  MEDVQA_CUDA_CALL(cudaSetDevice(device));
  cudaDeviceProp properties{};
  MEDVQA_CUDA_CALL(cudaGetDeviceProperties(&properties, device));
  return {.name = properties.name,
          .architecture = 10 * properties.major + properties.minor,
          .multiprocessors = properties.multiProcessorCount,
          .shared_bytes = properties.sharedMemPerBlockOptin,
          .memory_bytes = properties.totalGlobalMem};
}

Stream make_stream() {
  cudaStream_t stream = nullptr;
  MEDVQA_CUDA_CALL(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return stream;
}

void destroy_stream(Stream stream) {
  cudaStreamDestroy(stream);
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
