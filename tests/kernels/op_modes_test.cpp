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

std::vector<OpGroup> groups(bool written) {
  std::vector<OpGroup> chosen;
  for (const OpGroup& g : op_groups()) {
    if (is_written(g.name) == written) chosen.push_back(g);
  }
  return chosen;
}

std::string name_of_group(const ::testing::TestParamInfo<OpGroup>& group) {
  return group.param.name;
}

INSTANTIATE_TEST_SUITE_P(All, Operation, ::testing::ValuesIn(groups(true)), name_of_group);

// An operation without a kernel refuses to run, and one that has got its kernel leaves the list.
class UnwrittenOperation : public ::testing::TestWithParam<OpGroup> {};

TEST_P(UnwrittenOperation, SaysSo) {
  if (available_backends().empty()) GTEST_SKIP() << "this machine has no such device";
  const OpCase c = GetParam().make().front();
  for (const TestedBackend& b : available_backends()) {
    try {
      check_guards(c, b, c.types.back());
      ADD_FAILURE() << c.name << " ran on " << b.name << ": it is written";
    } catch (const InternalError& e) {
      EXPECT_NE(std::string(e.what()).find("has no CUDA kernel yet"), std::string::npos)
          << e.what();
    }
  }
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(UnwrittenOperation);
INSTANTIATE_TEST_SUITE_P(All, UnwrittenOperation, ::testing::ValuesIn(groups(false)),
                         name_of_group);

TEST(Backends, UnwrittenGroupsExist) {
  EXPECT_EQ(groups(false).size(), unwritten_groups().size());
}

TEST(Backends, RequiredOnesAreAvailable) {
  EXPECT_EQ(missing_backends(), std::vector<std::string>{});
}

}  // namespace
}  // namespace medvqa::testing
