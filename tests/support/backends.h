// The devices this program can test. Which they are is decided when it is linked: one file of
// support/devices belongs to each program.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "medvqa/ops/backend.h"

namespace medvqa::testing {

struct TestedBackend {
  std::string name;
  std::shared_ptr<ops::Backend> backend;
  std::vector<DType> types;  // storage types it must support
  // Of devices that watch every access: bytes nobody may touch, and a tensor's name for reports.
  std::function<void(const void* begin, std::size_t bytes)> forbid = {};
  std::function<void(const void* begin, std::size_t bytes, const std::string& name)> name_range =
      {};
  // Of devices where a library may do attention's forward: which one does this, in words; empty:
  // none. It is done once, on a queue of its own: nothing may be under way on these tensors.
  std::function<std::string(const ops::Attention& p, const Tensor& scratch)> library_attention = {};
};

// Storage types of the CUDA kernels on this device: no bf16 where the device cannot multiply it.
std::vector<DType> cuda_types(const ops::Backend& backend);

// In support/devices; empty where the machine has no such device.
std::vector<TestedBackend> make_backends();

const std::vector<TestedBackend>& available_backends();
// The oracle: f64 on the CPU.
std::shared_ptr<ops::Backend> shared_cpu_backend();
ops::Backend& cpu_backend();
// Names from the environment's MEDVQA_REQUIRE_BACKEND (comma separated) that are not available to
// this program.
std::vector<std::string> missing_backends();

}  // namespace medvqa::testing
