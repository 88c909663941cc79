// The case list tells the emulator which bytes of an operand's memory are tensor and which are not:
// an operation that leaves its tensors is stopped, even where it only reads.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/emulation/fault.h"
#include "tests/support/cases.h"
#include "tests/support/op_modes.h"

namespace medvqa::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// A strided copy, run with its source or target moved by `elements`.
std::string fault_of_moved_copy(std::size_t operand, std::int64_t elements) {
  OpCase c = copy_cases().at(3);  // strided [7, 13], one element before each row of the source
  c.run = [=](ops::Backend& b, const Tensors& t) {
    Tensors moved = t;
    Tensor& m = moved.at(operand);
    if (m.data != nullptr) m.data = m.as<float>() + elements;
    b.copy(moved[0], moved[1]);
  };
  try {
    check_guards(c, available_backends().front(), DType::f32);
  } catch (const emulation::EmulationFault& fault) {
    return fault.what();
  }
  return {};
}

TEST(Watch, ReadsAndWritesOutsideTensorsAreFaults) {
  EXPECT_EQ(fault_of_moved_copy(0, 0), "");
  EXPECT_THAT(fault_of_moved_copy(0, -1), AllOf(HasSubstr("reads 4 bytes"), HasSubstr(" of src ("),
                                                HasSubstr("between tensors")));
  EXPECT_THAT(fault_of_moved_copy(0, 1), HasSubstr("between tensors"));
  EXPECT_THAT(fault_of_moved_copy(1, -1), AllOf(HasSubstr("writes 4 bytes"), HasSubstr("of dst ("),
                                                HasSubstr("between tensors")));
}

// Integers are read as bits: a table's row that does not exist is a fault as well.
TEST(Watch, RowsThatDoNotExistAreFaults) {
  OpCase c = gather_rows_cases().at(1);
  c.operands[1].values[2] = 7;
  EXPECT_THROW(check_guards(c, available_backends().front(), DType::bf16),
               emulation::EmulationFault);
}

}  // namespace
}  // namespace medvqa::testing
