// Of both CUDA programs. A group leaves this list with its functions in kernels/cuda/unwritten.cpp.
#include "tests/support/backends.h"

namespace medvqa::testing {

std::vector<std::string> unwritten_groups() {
  return {"attention", "attention_backward"};
}

}  // namespace medvqa::testing
