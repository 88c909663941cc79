#include "tests/support/backends.h"

namespace medvqa::testing {

std::vector<TestedBackend> make_backends() {
  return {{"cpu", shared_cpu_backend(), {DType::f64, DType::f32, DType::bf16, DType::f16}}};
}

}  // namespace medvqa::testing
