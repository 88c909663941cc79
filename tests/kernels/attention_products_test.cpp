// The CPU's two forms of attention in bf16 on one machine: op_modes_test.cpp runs the one that the
// processor is given, and this the other.
#include <gtest/gtest.h>

#include "kernels/cpu/cpu_backend.h"
#include "tests/support/op_modes.h"

namespace medvqa::testing {
namespace {

class AttentionThroughOneDnn : public ::testing::TestWithParam<OpGroup> {};

TEST_P(AttentionThroughOneDnn, ReferenceGuardsAndScratch) {
  if (!cpu_backend().traits().bf16_pairs) GTEST_SKIP() << "this processor is given no other form";
  const TestedBackend onednn{"cpu-onednn",
                             std::make_shared<cpu::CpuBackend>(cpu::AttentionProducts::onednn),
                             {DType::bf16}};
  ASSERT_FALSE(onednn.backend->traits().bf16_pairs);
  for (const OpCase& c : GetParam().make()) {
    for (const std::string& line : check_reference(c, onednn, DType::bf16)) ADD_FAILURE() << line;
    for (const std::string& line : check_guards(c, onednn, DType::bf16)) ADD_FAILURE() << line;
  }
}

std::vector<OpGroup> attention_groups() {
  std::vector<OpGroup> groups;
  for (const OpGroup& g : op_groups()) {
    if (std::string(g.name).starts_with("attention")) groups.push_back(g);
  }
  return groups;
}

std::string name_of_group(const ::testing::TestParamInfo<OpGroup>& group) {
  return group.param.name;
}

INSTANTIATE_TEST_SUITE_P(All, AttentionThroughOneDnn, ::testing::ValuesIn(attention_groups()),
                         name_of_group);

}  // namespace
}  // namespace medvqa::testing
