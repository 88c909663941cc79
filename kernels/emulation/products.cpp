#include "kernels/cuda/products.h"

#include "kernels/cpu/cpu_backend.h"

namespace medvqa::cuda {

struct Products::State {
  cpu::CpuBackend cpu;
};

Products::Products(Stream) : state_(std::make_unique<State>()) {}
Products::~Products() = default;

ops::DeviceTraits Products::traits() const {
  return state_->cpu.traits();
}

std::string Products::version() {
  return "products by the CPU";
}

// The CPU's products take their temporaries from the scratch memory of the call.
void Products::gemm(const ops::Gemm& p, const Tensor& scratch) {
  Arena arena("scratch", scratch.data, scratch.bytes());
  state_->cpu.use_scratch(arena);
  state_->cpu.gemm(p);
}

}  // namespace medvqa::cuda
