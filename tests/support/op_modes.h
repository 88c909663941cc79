// The modes every case runs in. Each returns one line for every failure, so that the harness can
// itself be shown to fail (tests/kernels/harness_test.cpp).
#pragma once

#include <string>
#include <vector>

#include "tests/support/backends.h"
#include "tests/support/op_case.h"

namespace medvqa::testing {

using Failures = std::vector<std::string>;

// `backend` in `type` against CPU f64 on the same, already rounded inputs; exact outputs, and
// cases that do not exist in f64, against the case's plain computation.
Failures check_reference(const OpCase& c, const TestedBackend& backend, DType type);
// CPU f64 against the case's plain computation.
Failures check_oracle(const OpCase& c);
// CPU f64 backward against fourth-order central differences of the forward.
Failures check_gradient(const OpCase& c);
// Sentinels around operands, in gaps and behind the scratch memory, and all inputs are unchanged;
// the operation runs in exactly the scratch memory that the dry run measured.
Failures check_guards(const OpCase& c, const TestedBackend& backend, DType type);

// All operations of Backend.
const std::vector<OpGroup>& op_groups();

// Inputs rounded to the types they have when the case runs in `compute`, derived ones included.
Values case_values(const OpCase& c, DType compute);

}  // namespace medvqa::testing
