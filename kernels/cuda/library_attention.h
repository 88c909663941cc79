// Attention by a library: cuDNN on a device (nvidia/library_attention.cpp). Under the emulator, and
// in a program built without cuDNN, there is none (without_cudnn/library_attention.cpp).
//
// Only the forward. cuDNN refuses a deterministic backward of packed samples on sm_8x, so the
// gradients are our kernels', which read the same lse.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "kernels/cuda/device_memory.h"
#include "medvqa/ops/backend.h"

namespace medvqa::cuda {

class LibraryAttention {
 public:
  LibraryAttention(const DeviceLimits& device, Stream stream);
  ~LibraryAttention();
  LibraryAttention(const LibraryAttention&) = delete;
  LibraryAttention& operator=(const LibraryAttention&) = delete;

  // The library behind, in words; empty where there is none.
  static std::string version();
  // False, and nothing is done, for what the library does not serve. Asynchronous.
  bool forward(const ops::Attention& p, const Tensor& scratch);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// What a library is told beside the tensors, in the scratch memory of the call. Samples beyond the
// batch's are empty. Offsets are in elements, i32 [samples + 1]; lengths i32 [samples].
struct LibraryOperands {
  std::int64_t samples = 0;
  std::int64_t length = 0;  // rows a sample is taken to have at most
  std::int32_t *q_offsets = nullptr, *k_offsets = nullptr, *v_offsets = nullptr,
               *y_offsets = nullptr, *lengths = nullptr;
  float* lse = nullptr;  // [samples, H, length]
  void* workspace = nullptr;
};
LibraryOperands library_operands(const ops::Attention& p, const Tensor& scratch);
// Offsets and lengths, from cu_q_N and the tensors' row strides.
void write_library_operands(const ops::Attention& p, const LibraryOperands& o, Stream stream);
// lse_HT from the library's.
void read_library_lse(const ops::Attention& p, const LibraryOperands& o, Stream stream);

}  // namespace medvqa::cuda
