// A CPU backend with its arenas, and host values in and out: what layers and models are tested on.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cpu/cpu_backend.h"
#include "medvqa/autograd/segment_tape.h"

namespace medvqa::testing {

class TestDevice {
 public:
  explicit TestDevice(DType compute, std::size_t arena_bytes = std::size_t{8} << 20);

  ops::Backend& backend() { return backend_; }
  DType compute() const { return compute_; }
  Arena& tensors() { return tensors_; }  // lives as long as the device
  Arena& step() { return step_; }
  Arena& block() { return block_; }
  Arena& scratch() { return scratch_; }
  Arena& host() { return host_; }
  autograd::SegmentTape::Memory memory() { return {step_, block_, scratch_, &host_}; }

  Tensor put(const std::vector<double>& values, Shape shape, DType type);
  Tensor put(const std::vector<double>& values, Shape shape) {
    return put(values, shape, compute_);
  }
  // Uniform in [-scale, scale], named so that it is the same in every run.
  Tensor random(const std::string& name, Shape shape, double scale = 1);
  Tensor integers(const std::vector<std::int32_t>& values);
  void set(const Tensor& t, const std::vector<double>& values);
  std::vector<double> get(const Tensor& t);

 private:
  Arena arena(const char* name, std::size_t bytes);

  cpu::CpuBackend backend_;
  DType compute_;
  std::vector<std::shared_ptr<void>> memory_;
  Arena tensors_, step_, block_, scratch_, host_;
};

// Fourth-order central differences of f, whose value is a sum with `size` as sum of |terms|,
// against `gradient` at every element of x that `stride` meets. One line for each failure.
std::vector<std::string> compare_with_differences(
    const std::string& name, const std::vector<double>& x, const std::vector<double>& gradient,
    double size, const std::function<double(const std::vector<double>&)>& f,
    std::size_t stride = 1);

}  // namespace medvqa::testing
