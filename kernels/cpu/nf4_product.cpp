// The specification of kernels/cuda/nf4_product.cu: W is made, and then multiplied.
#include "kernels/cpu/cpu_backend.h"

namespace medvqa::cpu {

void CpuBackend::do_nf4_product(const ops::Nf4Product& p, const Tensor& scratch) {
  compose_nf4_product(p, scratch);
}

}  // namespace medvqa::cpu
