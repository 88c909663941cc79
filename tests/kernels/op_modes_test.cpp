// Every operation in every mode, on every backend there is.
#include "tests/support/op_modes.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace medvqa::testing {
namespace {

class Operation : public ::testing::TestWithParam<OpGroup> {};

void report(const Failures& failures) {
  for (const std::string& line : failures) ADD_FAILURE() << line;
}

bool takes(const OpCase& c, DType t) {
  return std::find(c.types.begin(), c.types.end(), t) != c.types.end();
}

TEST_P(Operation, Reference) {
  int runs = 0;
  for (const OpCase& c : GetParam().make()) {
    for (const TestedBackend& b : available_backends()) {
      for (const DType t : b.types) {
        const bool oracle_itself = &*b.backend == &cpu_backend() && t == DType::f64;
        if (!takes(c, t) || oracle_itself) continue;
        report(check_reference(c, b, t));
        ++runs;
      }
    }
  }
  EXPECT_GT(runs, 0);
}

TEST_P(Operation, OracleAgainstPlainComputation) {
  for (const OpCase& c : GetParam().make()) report(check_oracle(c));
}

TEST_P(Operation, Gradient) {
  for (const OpCase& c : GetParam().make()) report(check_gradient(c));
}

TEST_P(Operation, GuardsAndScratch) {
  for (const OpCase& c : GetParam().make()) {
    for (const TestedBackend& b : available_backends()) {
      for (const DType t : b.types) {
        if (takes(c, t)) report(check_guards(c, b, t));
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, Operation, ::testing::ValuesIn(op_groups()),
                         [](const auto& group) { return group.param.name; });

TEST(Backends, RequiredOnesAreAvailable) {
  EXPECT_EQ(missing_backends(), std::vector<std::string>{});
}

}  // namespace
}  // namespace medvqa::testing
