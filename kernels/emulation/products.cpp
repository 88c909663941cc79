#include "kernels/cuda/products.h"

#include "kernels/cpu/cpu_backend.h"

namespace medvqa::cuda {

struct Products::State {
  cpu::CpuBackend cpu;

  // The CPU's products take their temporaries from the scratch memory of the call.
  template <class F>
  void run(const Tensor& scratch, F&& f) {
    Arena arena("scratch", scratch.data, scratch.bytes());
    cpu.use_scratch(arena);
    f();
  }
};

Products::Products(Stream) : state_(std::make_unique<State>()) {}
Products::~Products() = default;

ops::DeviceTraits Products::traits() const {
  return state_->cpu.traits();
}

void Products::gemm(const ops::Gemm& p, const Tensor& scratch) {
  state_->run(scratch, [&] { state_->cpu.gemm(p); });
}

void Products::gemm_group(std::span<const ops::Gemm> group, const Tensor& scratch) {
  state_->run(scratch, [&] { state_->cpu.gemm_group(group); });
}

}  // namespace medvqa::cuda
