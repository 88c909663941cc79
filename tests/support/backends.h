// The devices this program can test. A new one is added in backends.cpp and nowhere else.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "medvqa/ops/backend.h"

namespace medvqa::testing {

struct TestedBackend {
  std::string name;
  std::shared_ptr<ops::Backend> backend;
  std::vector<DType> types;  // storage types it must support
};

const std::vector<TestedBackend>& available_backends();
// The oracle: f64 on the CPU.
ops::Backend& cpu_backend();
// Names from the environment's MEDVQA_REQUIRE_BACKEND (comma separated) that are not available.
std::vector<std::string> missing_backends();

}  // namespace medvqa::testing
