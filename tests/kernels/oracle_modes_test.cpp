// Every operation in the modes that concern the CPU's f64 alone.
#include <gtest/gtest.h>

#include "tests/support/op_modes.h"

namespace medvqa::testing {
namespace {

class Oracle : public ::testing::TestWithParam<OpGroup> {};

void report(const Failures& failures) {
  for (const std::string& line : failures) ADD_FAILURE() << line;
}

TEST_P(Oracle, AgainstPlainComputation) {
  for (const OpCase& c : GetParam().make()) report(check_oracle(c));
}

TEST_P(Oracle, Gradient) {
  for (const OpCase& c : GetParam().make()) report(check_gradient(c));
}

INSTANTIATE_TEST_SUITE_P(All, Oracle, ::testing::ValuesIn(op_groups()),
                         [](const auto& group) { return group.param.name; });

}  // namespace
}  // namespace medvqa::testing
