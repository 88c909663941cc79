// Every operation in the modes of devices, on every backend this program has.
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
  if (available_backends().empty()) GTEST_SKIP() << "this machine has no such device";
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

TEST_P(Operation, GuardsAndScratch) {
  if (available_backends().empty()) GTEST_SKIP() << "this machine has no such device";
  for (const OpCase& c : GetParam().make()) {
    for (const TestedBackend& b : available_backends()) {
      for (const DType t : b.types) {
        if (takes(c, t)) report(check_guards(c, b, t));
      }
    }
  }
}

std::string name_of_group(const ::testing::TestParamInfo<OpGroup>& group) {
  return group.param.name;
}

INSTANTIATE_TEST_SUITE_P(All, Operation, ::testing::ValuesIn(op_groups()), name_of_group);

TEST(Backends, RequiredOnesAreAvailable) {
  EXPECT_EQ(missing_backends(), std::vector<std::string>{});
}

}  // namespace
}  // namespace medvqa::testing
