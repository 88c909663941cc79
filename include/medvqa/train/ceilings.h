// What a device can do at most, measured on the spot: what speeds are compared with.
#pragma once

#include "medvqa/ops/backend.h"

namespace medvqa::train {

// Medians of several runs, each long enough for the clock; under a second. A copy takes up to 1/8
// of the memory that is free.

// Bytes a second moved by a copy, each read and written: 2 n / t.
double measure_copy(ops::Backend& backend);
// Floating-point operations a second of a square product: 2 n^3 / t. `type`: of its operands, sums
// in f32.
double measure_product(ops::Backend& backend, DType type);

}  // namespace medvqa::train
