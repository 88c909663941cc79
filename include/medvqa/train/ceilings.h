// What a device can do at most, measured on the spot: what speeds are compared with.
#pragma once

#include "medvqa/ops/backend.h"

namespace medvqa::train {

struct Ceilings {
  double copied = 0;    // bytes a second moved by a copy, each read and written: 2 n / t
  double products = 0;  // floating-point operations a second of a square product: 2 n^3 / t
};

// Medians of several runs, each long enough for the clock; about a second. Takes up to 1/8 of the
// memory that is free. `type`: of the product's operands, sums in f32.
Ceilings measure_ceilings(ops::Backend& backend, DType type);

}  // namespace medvqa::train
