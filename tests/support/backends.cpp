#include "tests/support/backends.h"

#include <algorithm>
#include <cstdlib>
#include <sstream>

#include "kernels/cpu/cpu_backend.h"
#include "medvqa/ops/scratch.h"

namespace medvqa::testing {

const std::vector<TestedBackend>& available_backends() {
  static const std::vector<TestedBackend> backends = make_backends();
  return backends;
}

std::shared_ptr<ops::Backend> shared_cpu_backend() {
  static const auto backend = std::make_shared<cpu::CpuBackend>();
  return backend;
}

ops::Backend& cpu_backend() {
  return *shared_cpu_backend();
}

std::vector<DType> cuda_types(const ops::Backend& backend) {
  if (!ops::has_bf16(backend.traits())) return {DType::f32, DType::f16};
  return {DType::f32, DType::bf16, DType::f16};
}

std::vector<std::string> missing_backends() {
  std::vector<std::string> missing;
  const char* required = std::getenv("MEDVQA_REQUIRE_BACKEND");
  if (required == nullptr) return missing;
  std::istringstream names(required);
  for (std::string name; std::getline(names, name, ',');) {
    const auto& all = available_backends();
    const bool found =
        std::any_of(all.begin(), all.end(), [&](const TestedBackend& b) { return b.name == name; });
    if (!found) missing.push_back(name);
  }
  return missing;
}

}  // namespace medvqa::testing
