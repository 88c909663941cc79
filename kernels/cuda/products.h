// The products of CudaBackend: cuBLASLt on a device (nvidia/products.cpp), CpuBackend's under the
// emulator (kernels/emulation/products.cpp).
#pragma once

#include <memory>
#include <string>

#include "kernels/cuda/device_memory.h"
#include "medvqa/ops/backend.h"

namespace medvqa::cuda {

class Products {
 public:
  explicit Products(Stream stream);
  ~Products();
  Products(const Products&) = delete;
  Products& operator=(const Products&) = delete;

  // The library behind, in words.
  static std::string version();
  // What ops::scratch_bytes must know of these products; the backend names the device.
  ops::DeviceTraits traits() const;
  // Without an activation.
  void gemm(const ops::Gemm& p, const Tensor& scratch);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace medvqa::cuda
