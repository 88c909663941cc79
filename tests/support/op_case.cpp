#include "tests/support/op_case.h"

#include "tests/support/random_values.h"

namespace medvqa::testing {

DType ElementType::in(DType compute) const {
  if (kind == Kind::compute) return compute;
  if (kind == Kind::fixed) return type;
  return compute == DType::f64 ? DType::f64 : DType::f32;
}

int OpCase::input(std::string operand, Shape shape, ElementType type) {
  auto values = random_values(name + "." + operand, shape.elements());
  return input(std::move(operand), shape, std::move(values), type);
}

int OpCase::input(std::string operand, Shape shape, std::vector<double> values, ElementType type) {
  operands.push_back({std::move(operand), Role::input, type, shape, std::move(values)});
  return static_cast<int>(operands.size()) - 1;
}

int OpCase::output(std::string operand, Shape shape, ElementType type) {
  operands.push_back({std::move(operand), Role::output, type, shape, {}});
  return static_cast<int>(operands.size()) - 1;
}

int OpCase::both(std::string operand, Shape shape, ElementType type) {
  const int i = input(std::move(operand), shape, type);
  operands.back().role = Role::both;
  return i;
}

int OpCase::spare(std::string operand, Shape shape, ElementType type) {
  const int i = output(std::move(operand), shape, type);
  operands.back().role = Role::spare;
  return i;
}

int OpCase::gradient(std::string operand, Shape shape, bool accumulate, ElementType type) {
  return accumulate ? both(std::move(operand), shape, type)
                    : output(std::move(operand), shape, type);
}

void OpCase::stride(int i, std::int64_t lead, std::int64_t trail) {
  (*this)[i].lead = lead;
  (*this)[i].trail = trail;
}

double rounded(double value, DType type) {
  switch (type) {
    case DType::f64:
      return value;
    case DType::f32:
      return static_cast<double>(static_cast<float>(value));
    case DType::bf16:
      return static_cast<double>(BFloat16(static_cast<float>(value)));
    case DType::f16:
      return static_cast<double>(Float16(static_cast<float>(value)));
    default:
      return value;
  }
}

}  // namespace medvqa::testing
