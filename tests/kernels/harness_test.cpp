// The harness must be able to fail: for every case, errors planted into what the operation does
// have to be found by each mode.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "tests/support/op_modes.h"

namespace medvqa::testing {
namespace {

const TestedBackend& cpu() {
  return available_backends().front();
}

DType narrowest(const OpCase& c) {
  const bool half = std::find(c.types.begin(), c.types.end(), DType::bf16) != c.types.end();
  return half ? DType::bf16 : c.types.front();
}

// The middle element of a tensor on the CPU, changed by a 16th of its size and of the largest.
void spoil(const Tensor& t) {
  const std::int64_t n = t.elements();
  const std::int64_t columns = t.row_elements();
  const std::int64_t e = n / 2;
  const std::int64_t index = e / columns * t.row_stride + e % columns;
  if (!is_floating(t.dtype)) {
    auto* byte =
        static_cast<std::uint8_t*>(t.data) + index * static_cast<std::int64_t>(size_of(t.dtype));
    *byte = static_cast<std::uint8_t>(*byte ^ 1u);
    return;
  }
  dispatch_float(t.dtype, [&]<class T>() {
    T* x = t.as<T>();
    double largest = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      const T& v = x[i / columns * t.row_stride + i % columns];
      largest = std::max(largest, std::fabs(static_cast<double>(v)));
    }
    const double wrong = static_cast<double>(x[index]) + std::max(largest, 0x1p-6) / 4;
    x[index] = static_cast<T>(static_cast<Accumulator<T>>(wrong));
  });
}

bool writes(const Operand& o) {
  return o.role == Role::output || o.role == Role::both;
}

// Adds to `run` an error in operand i, for tensors with memory and only where `when` says so.
template <class When>
OpCase with_wrong(const OpCase& c, std::size_t i, When when) {
  OpCase wrong = c;
  wrong.run = [run = c.run, i, when](ops::Backend& b, const Tensors& t) {
    run(b, t);
    if (t[i].data != nullptr && when(t[i].dtype)) spoil(t[i]);
  };
  return wrong;
}

// Runs of the f64 reference stay right: those of the case itself are the ones spoiled.
TEST(Harness, ReferenceModeFindsOneWrongElementOfAnyOutput) {
  int planted = 0;
  for (const OpGroup& group : op_groups()) {
    for (const OpCase& c : group.make()) {
      const DType type = narrowest(c);
      for (std::size_t i = 0; i < c.operands.size(); ++i) {
        if (!writes(c.operands[i])) continue;
        int runs = 0;  // dry runs have no memory; the first real run is the tested backend's
        const OpCase wrong = with_wrong(c, i, [&runs](DType) { return runs++ == 0; });
        EXPECT_FALSE(check_reference(wrong, cpu(), type).empty()) << c.name << " operand " << i;
        ++planted;
      }
    }
  }
  EXPECT_GT(planted, 200);
}

TEST(Harness, OracleModeFindsOneWrongElementOfAnyOutput) {
  for (const OpGroup& group : op_groups()) {
    for (const OpCase& c : group.make()) {
      if (c.types.front() != DType::f64) continue;
      for (std::size_t i = 0; i < c.operands.size(); ++i) {
        if (!writes(c.operands[i])) continue;
        const OpCase wrong = with_wrong(c, i, [](DType) { return true; });
        EXPECT_FALSE(check_oracle(wrong).empty()) << c.name << " operand " << i;
      }
    }
  }
}

TEST(Harness, GradientModeFindsAWrongSlope) {
  int planted = 0;
  for (const OpGroup& group : op_groups()) {
    const std::vector<OpCase> cases = group.make();
    for (const OpCase& c : cases) {
      if (!c.derivatives.forward || c.operands[0].values.size() > 2000) continue;
      for (const auto& pair : c.derivatives.pairs) {
        const auto out = static_cast<std::size_t>(pair.first);
        OpCase wrong = c;
        wrong.run = [run = c.run, out](ops::Backend& b, const Tensors& t) {
          run(b, t);
          if (t[out].data == nullptr) return;
          const Tensor& g = t[out];  // off by a thousandth, everywhere
          for (std::int64_t e = 0; e < g.elements(); ++e) {
            double& x = g.as<double>()[e / g.row_elements() * g.row_stride + e % g.row_elements()];
            x += 1e-3 * (std::fabs(x) + 1e-3);
          }
        };
        EXPECT_FALSE(check_gradient(wrong).empty()) << c.name;
        ++planted;
      }
    }
  }
  EXPECT_GT(planted, 40);
}

OpCase only_case(const std::string& group, std::size_t index) {
  for (const OpGroup& g : op_groups()) {
    if (g.name == group) return g.make().at(index);
  }
  throw InternalError("no group " + group);
}

// `damage` is done to the operands' memory after a right run.
template <class F>
Failures guards_after(const OpCase& c, F damage) {
  OpCase wrong = c;
  wrong.run = [run = c.run, damage](ops::Backend& b, const Tensors& t) {
    run(b, t);
    if (t[0].data != nullptr) damage(t);
  };
  return check_guards(wrong, cpu(), DType::f32);
}

TEST(Harness, GuardModeFindsStrayWrites) {
  const OpCase c = only_case("copy", 3);  // strided [7, 13]
  ASSERT_TRUE(guards_after(c, [](const Tensors&) {}).empty());
  const auto floats = [](const Tensor& t) { return t.as<float>(); };
  EXPECT_FALSE(guards_after(c, [&](const Tensors& t) { floats(t[1])[-1] = 0; }).empty());
  EXPECT_FALSE(guards_after(c, [&](const Tensors& t) { floats(t[1])[-4] = 0; }).empty());
  EXPECT_FALSE(guards_after(c, [&](const Tensors& t) { floats(t[1])[13] = 0; }).empty());
  EXPECT_FALSE(guards_after(c, [&](const Tensors& t) { floats(t[0])[5] = 9; }).empty());
  EXPECT_FALSE(guards_after(c, [&](const Tensors& t) {
                 floats(t[1])[6 * t[1].row_stride + 13] = 0;
               }).empty());
}

TEST(Harness, GuardModeFindsScratchThatTheDryRunDidNotSee) {
  // More scratch in the real run than in the dry run: the arena is exhausted.
  OpCase greedy = only_case("attention", 0);
  greedy.run = [run = greedy.run](ops::Backend& b, const Tensors& t) {
    run(b, t);
    if (t[0].data == nullptr) return;
    const Tensor a(t[0].data, t[0].dtype, {1, 1});
    ops::Attention p{.q_THD = t[0],
                     .k_SGD = t[1],
                     .v_SGD = t[2],
                     .y_THD = t[5],
                     .lse_HT = t[6],
                     .cu_q_N = t[3],
                     .cu_k_N = t[4],
                     .max_q = 1,
                     .max_k = 100000,
                     .causal = false,
                     .scale = 1};
    b.attention(p);
  };
  EXPECT_THROW(check_guards(greedy, cpu(), DType::f32), UserError);
  // More in the dry run than in the real one.
  OpCase modest = only_case("attention", 0);
  modest.run = [run = modest.run](ops::Backend& b, const Tensors& t) {
    if (t[0].data == nullptr) run(b, t);
  };
  EXPECT_FALSE(check_guards(modest, cpu(), DType::f32).empty());
}

// An operation that leaves an element unwritten leaves a NaN there, which no tolerance accepts.
TEST(Harness, ReferenceModeFindsUnwrittenOutputs) {
  for (const char* group : {"gemm", "rms_norm", "attention", "swiglu", "gather_rows"}) {
    OpCase lazy = only_case(group, 0);
    lazy.run = [run = lazy.run](ops::Backend& b, const Tensors& t) {
      if (t[0].data == nullptr || t[0].dtype == DType::f64) run(b, t);
    };
    EXPECT_FALSE(check_reference(lazy, cpu(), DType::f32).empty()) << group;
  }
}

TEST(Harness, ARequiredBackendThatIsMissingIsReported) {
  setenv("MEDVQA_REQUIRE_BACKEND", "cpu,no-such-device", 1);
  EXPECT_EQ(missing_backends(), std::vector<std::string>{"no-such-device"});
  unsetenv("MEDVQA_REQUIRE_BACKEND");
}

// Every public operation of Backend has cases.
TEST(Harness, TheListHasEveryOperation) {
  std::vector<std::string> names;
  for (const OpGroup& g : op_groups()) {
    names.push_back(g.name);
    EXPECT_FALSE(g.make().empty()) << g.name;
  }
  std::sort(names.begin(), names.end());
  EXPECT_EQ(std::unique(names.begin(), names.end()), names.end());
  EXPECT_EQ(names.size(), 27u);
}

}  // namespace
}  // namespace medvqa::testing
