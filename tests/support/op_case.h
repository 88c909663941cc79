// One case of one operation: how to build the operands, how to run it on any device, and what a
// plain f64 computation that shares no code with the kernels expects. The modes in op_modes.h do
// the rest, so a case is written once and tested on every device and in every type.
#pragma once

#include <cstdint>
#include <functional>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "medvqa/ops/backend.h"

namespace medvqa::testing {

// The type of an operand in terms of the type the case runs in.
struct ElementType {
  enum class Kind : std::uint8_t { compute, accumulator, fixed };
  Kind kind = Kind::compute;
  DType type = DType::f32;  // only if fixed
  DType in(DType compute) const;
};
inline constexpr ElementType kCompute{ElementType::Kind::compute, DType::f32};
inline constexpr ElementType kAccumulator{ElementType::Kind::accumulator, DType::f32};
constexpr ElementType fixed(DType t) {
  return {ElementType::Kind::fixed, t};
}

enum class Role : std::uint8_t {
  input,   // must stay as it is, bit for bit
  output,  // holds NaN before
  both,    // read and overwritten
  spare,   // for the forward run of gradient mode; not looked at
};

struct Operand {
  std::string name;
  Role role = Role::input;
  ElementType type;
  Shape shape;
  std::vector<double> values;  // before the run; empty for outputs
  std::int64_t lead = 0;       // columns of somebody else before and after each row
  std::int64_t trail = 0;
};

using Values = std::vector<std::vector<double>>;  // by operand
using Tensors = std::vector<Tensor>;              // by operand

// What an output must be. A computed element may be off by
//   roundoff(its type) |value| + (reduction + const) roundoff(sums) magnitude
//     + roundings roundoff(compute type) rounded_magnitude,
// reduction = min(length, 6 sqrt(length)): the worst case of short sums, six deviations of long.
struct Expected {
  int operand = 0;
  std::vector<double> value = {};
  std::vector<double> magnitude =
      {};                // sum of |terms| behind each element, errors of inputs included
  double length = 1;     // terms in the longest sum behind an element
  double roundings = 0;  // intermediate results a device may round to the compute type
  std::vector<double> rounded_magnitude = {};  // sum of |terms| made of those; empty: magnitude
  bool exact = false;                          // bits, after rounding `value` to the operand's type
};

// Gradient mode: d sum_i weight_i y_i / d input against the case's own output.
struct Derivatives {
  std::function<void(ops::Backend&, const Tensors&)> forward = {};
  int y = -1;
  int weight = -1;  // operand with dy; -1: every weight is `factor`
  double factor = 1;
  std::vector<std::pair<int, int>> pairs = {};  // gradient operand, input operand
};

struct OpCase {
  std::string name;
  std::vector<Operand> operands;
  std::function<void(ops::Backend&, const Tensors&)> run;
  // Fills inputs that depend on others (statistics a forward kept), from values already rounded.
  std::function<void(Values&)> derive;
  // Expected outputs for inputs as rounded to `compute`.
  std::function<std::vector<Expected>(const Values&, DType compute)> oracle;
  Derivatives derivatives;
  std::vector<DType> types{DType::f64, DType::f32, DType::bf16, DType::f16};

  explicit OpCase(std::string case_name) : name(std::move(case_name)) {}
  // Each returns the operand's index. Values are uniform in [-1, 1] unless given.
  int input(std::string operand, Shape shape, ElementType type = kCompute);
  int input(std::string operand, Shape shape, std::vector<double> values,
            ElementType type = kCompute);
  int output(std::string operand, Shape shape, ElementType type = kCompute);
  int both(std::string operand, Shape shape, ElementType type = kCompute);
  int spare(std::string operand, Shape shape, ElementType type = kCompute);
  // Output that is added to (values before are random) or overwritten.
  int gradient(std::string operand, Shape shape, bool accumulate, ElementType type = kCompute);
  Operand& operator[](int i) { return operands.at(static_cast<std::size_t>(i)); }
  const Operand& operator[](int i) const { return operands.at(static_cast<std::size_t>(i)); }
  // Makes rows strided.
  void stride(int i, std::int64_t lead, std::int64_t trail);
};

// Cases of one operation, made on demand.
struct OpGroup {
  std::string name;
  std::function<std::vector<OpCase>()> make;
};
inline void PrintTo(const OpGroup& group, std::ostream* out) {
  *out << group.name;
}

double rounded(double value, DType type);
inline std::size_t at(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

}  // namespace medvqa::testing
