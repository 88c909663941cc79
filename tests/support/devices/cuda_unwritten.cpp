// Of both CUDA programs. A group leaves this list with its functions in kernels/cuda/unwritten.cpp.
#include "tests/support/backends.h"

namespace medvqa::testing {

std::vector<std::string> unwritten_groups() {
  return {"rms_norm",     "rms_norm_backward",
          "layer_norm",   "layer_norm_backward",
          "rotary_table", "rotary",
          "activation",   "activation_backward",
          "swiglu",       "swiglu_backward",
          "dropout",      "linear_cross_entropy",
          "global_norm",  "adamw"};
}

}  // namespace medvqa::testing
