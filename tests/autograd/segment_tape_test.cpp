// A chain of segments in which one value is read by three others, under every recompute policy.
#include "medvqa/autograd/segment_tape.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "medvqa/autograd/functions.h"
#include "medvqa/ops/dry_backend.h"
#include "tests/support/test_device.h"

namespace medvqa::autograd {
namespace {

using medvqa::testing::TestDevice;

constexpr std::int64_t kTokens = 9, kSize = 4, kWide = 6 * kSize, kNarrow = 2 * kSize;
constexpr std::int64_t kVocabulary = 11, kRows = 4;
constexpr std::array kPolicies{Recompute::all, Recompute::attention_saved, Recompute::none};

struct Parameter {
  Tensor value, grad;
};

// y = x + parameter: the smallest function with something to train.
Var add_parameter(Tape& t, const Var& x, const Parameter& p) {
  const Tensor y = t.allocate(x.value.shape, x.value.dtype);
  t.backend().copy(x.value, y);
  t.backend().accumulate(p.value, {y, true});
  const Var out = t.result(y, {x}, true);
  t.on_backward(out, [=, &t] {
    const Tensor dy = t.grad_of(out);
    t.backend().accumulate(dy, {p.grad, true});
    t.backend().accumulate(dy, t.grad(x));
  });
  return out;
}

struct Model {
  Tensor x, norm_wide, norm_narrow, head, cu, rows, labels, nll, correct;
  std::array<Parameter, 3> parameters;
};

// With an arena that only measures the tensors have no memory, which is all a dry run needs.
Model make_model(Arena& arena, DType type) {
  Model m;
  const DType sums = accumulator_of(type);
  m.x = arena.allocate({kTokens, kWide}, type);
  m.norm_wide = arena.allocate({kWide}, type);
  m.norm_narrow = arena.allocate({kNarrow}, type);
  m.head = arena.allocate({kVocabulary, kNarrow}, type);
  m.cu = arena.allocate({4}, DType::i32);
  m.rows = arena.allocate({kRows}, DType::i32);
  m.labels = arena.allocate({kRows}, DType::i32);
  m.nll = arena.allocate({kRows}, sums);
  m.correct = arena.allocate({kRows}, DType::i32);
  const std::array<std::int64_t, 3> widths{kWide, kNarrow, kNarrow};
  for (std::size_t i = 0; i < 3; ++i) {
    m.parameters[i].value = arena.allocate({kTokens, widths[i]}, type);
    m.parameters[i].grad = arena.allocate({kTokens, widths[i]}, type);
  }
  return m;
}

Model real_model(TestDevice& d) {
  const Model m = make_model(d.tensors(), d.compute());
  const auto draw = [&](const char* name, const Tensor& t) {
    Arena::Scope scope(d.tensors());
    d.backend().copy(d.random(name, t.shape), t);
  };
  draw("x", m.x);
  draw("norm_wide", m.norm_wide);
  draw("norm_narrow", m.norm_narrow);
  draw("head", m.head);
  draw("p0", m.parameters[0].value);
  draw("p1", m.parameters[1].value);
  draw("p2", m.parameters[2].value);
  for (const Parameter& p : m.parameters) d.backend().fill(p.grad, 0);
  const std::vector<std::int32_t> cu{0, 4, 5, 9}, rows{8, 0, 3, 4}, labels{1, 10, 0, 7};
  d.backend().upload(cu.data(), 16, m.cu);
  d.backend().upload(rows.data(), 16, m.rows);
  d.backend().upload(labels.data(), 16, m.labels);
  return m;
}

Var self_attention(Tape& t, const Var& packed, const Segments& s) {
  return attention(t, {packed, 0, 4}, {packed, 4 * kSize, 1}, {packed, 5 * kSize, 1},
                   {.head_size = kSize, .causal = true, .scale = 0.5, .queries = s, .keys = s});
}

// Queries from `q`, keys and values from the halves of `kv`.
Var cross_attention(Tape& t, const Var& q, const Var& kv, const Segments& s) {
  return attention(t, {q, 0, 2}, {kv, 0, 1}, {kv, kSize, 1},
                   {.head_size = kSize, .scale = 0.5, .queries = s, .keys = s});
}

void run(ops::Backend& backend, SegmentTape::Memory memory, const Model& m,
         SegmentTape::Options options) {
  Arena::Scope step(memory.step);
  Arena::Scope block(memory.block);
  Arena::Scope host(*memory.host);
  SegmentTape tape(backend, memory, options);
  const Segments samples{m.cu, 4};
  const auto& p = m.parameters;
  // In the tape's memory, as a model's inputs are.
  const StepVar x = tape.input(m.x.shape, m.x.dtype);
  backend.copy(m.x, x.value);
  const StepVar a = tape.run("a", {x}, [&](Tape& t, std::span<const Var> in) {
    return rms_norm(t, add_parameter(t, in[0], p[0]), m.norm_wide, 1e-5);
  });
  const StepVar b = tape.run("b", {a}, [&](Tape& t, std::span<const Var> in) {
    const Var wide = self_attention(t, in[0], samples);  // [T, 4 size]
    return add_parameter(t, swiglu(t, wide), p[1]);
  });
  const StepVar c = tape.run("c", {b, a}, [&](Tape& t, std::span<const Var> in) {
    const Var again = swiglu(t, self_attention(t, in[1], samples));
    const Var mixed = cross_attention(t, again, in[0], samples);
    return cross_attention(t, add_parameter(t, mixed, p[2]), in[0], samples);
  });
  const StepVar d = tape.run("d", {c, b}, [&](Tape& t, std::span<const Var> in) {
    return cross_attention(t, in[0], in[1], samples);
  });
  tape.finish(d, [&](Tape& t, const Var& h) {
    const Var y = rms_norm(t, gather_rows(t, h, m.rows), m.norm_narrow, 1e-5);
    Tensor dx;
    if (t.needs_grad(y)) dx = t.allocate(y.value.shape, y.value.dtype);
    backend.linear_cross_entropy({.x_RC = y.value,
                                  .weight_VC = m.head,
                                  .labels_R = m.labels,
                                  .loss_scale = 0.25,
                                  .nll_R = m.nll,
                                  .correct_R = m.correct,
                                  .dx_RC = {dx, false}});
    return std::pair(y, dx);
  });
}

struct Outcome {
  std::vector<std::vector<double>> values;  // nll, then gradients
  std::size_t step, block, scratch, host;
};

Outcome outcome(DType type, SegmentTape::Options options) {
  TestDevice d(type, std::size_t{1} << 20);
  const Model m = real_model(d);
  run(d.backend(), d.memory(), m, options);
  EXPECT_EQ(d.step().used() + d.block().used() + d.scratch().used(), 0u);
  Outcome o{{d.get(m.nll)}, d.step().peak(), d.block().peak(), d.scratch().peak(), d.host().peak()};
  for (const Parameter& p : m.parameters) o.values.push_back(d.get(p.grad));
  return o;
}

TEST(SegmentTape, PoliciesAgreeBitForBit) {
  for (const DType type : {DType::f64, DType::f32, DType::bf16, DType::f16}) {
    const Outcome kept = outcome(type, {.recompute = Recompute::none});
    for (const auto& gradient : kept.values) {
      double largest = 0;
      for (const double g : gradient) largest = std::max(largest, std::fabs(g));
      EXPECT_GT(largest, 0) << name_of(type);  // something flowed everywhere
      EXPECT_TRUE(std::isfinite(largest));
    }
    for (const Recompute r : {Recompute::all, Recompute::attention_saved}) {
      EXPECT_EQ(outcome(type, {.recompute = r}).values, kept.values) << name_of(type);
      const Outcome away = outcome(type, {.recompute = r, .points = ops::Place::host});
      EXPECT_EQ(away.values, kept.values) << name_of(type) << " points on the host";
      EXPECT_GT(away.host, 0u);
    }
  }
}

TEST(SegmentTape, GradientsAgreeWithDifferences) {
  TestDevice d(DType::f64, std::size_t{1} << 20);
  const Model m = real_model(d);
  run(d.backend(), d.memory(), m, {});
  std::vector<std::vector<double>> gradients;
  for (const Parameter& p : m.parameters) gradients.push_back(d.get(p.grad));
  for (std::size_t i = 0; i < 3; ++i) {
    const Parameter& p = m.parameters[i];
    const auto loss = [&](const std::vector<double>& x) {
      d.set(p.value, x);
      run(d.backend(), d.memory(), m, {.training = false});
      double sum = 0;
      for (const double n : d.get(m.nll)) sum += 0.25 * n;
      return sum;
    };
    const std::vector<double> x = d.get(p.value);
    for (const std::string& line :
         testing::compare_with_differences("p" + std::to_string(i), x, gradients[i], 4, loss, 3)) {
      ADD_FAILURE() << line;
    }
    d.set(p.value, x);
  }
}

constexpr std::array<std::pair<Recompute, ops::Place>, 5> kWays{
    {{Recompute::all, ops::Place::device},
     {Recompute::attention_saved, ops::Place::device},
     {Recompute::none, ops::Place::device},
     {Recompute::all, ops::Place::host},
     {Recompute::attention_saved, ops::Place::host}}};

TEST(SegmentTape, TheDryRunKnowsTheMemoryToTheByte) {
  for (const DType type : {DType::f64, DType::f32, DType::bf16, DType::f16}) {
    for (const bool training : {true, false}) {
      for (const auto& [r, points] : kWays) {
        const SegmentTape::Options options{.recompute = r, .training = training, .points = points};
        const Outcome real = outcome(type, options);
        Arena tensors("tensors"), step("step"), block("block"), scratch("scratch");
        Arena host("host");
        TestDevice device(type, 4096);
        ops::DryBackend dry(device.backend().traits());
        dry.use_scratch(scratch);
        run(dry, {step, block, scratch, &host}, make_model(tensors, type), options);
        EXPECT_EQ(step.peak(), real.step) << name_of(type) << static_cast<int>(r) << training;
        EXPECT_EQ(block.peak(), real.block) << name_of(type) << static_cast<int>(r) << training;
        EXPECT_EQ(scratch.peak(), real.scratch) << name_of(type) << static_cast<int>(r);
        EXPECT_EQ(host.peak(), real.host) << name_of(type) << static_cast<int>(r) << training;
      }
    }
  }
}

// The point of the policies: less of the block arena for more work.
TEST(SegmentTape, RecomputingTakesLessOfTheBlockArena) {
  const Outcome all = outcome(DType::f32, {.recompute = Recompute::all});
  const Outcome attention = outcome(DType::f32, {.recompute = Recompute::attention_saved});
  const Outcome none = outcome(DType::f32, {.recompute = Recompute::none});
  EXPECT_LT(all.block, none.block);
  EXPECT_LT(attention.block, all.block);
  EXPECT_LT(all.step, attention.step);
}

TEST(SegmentTape, ForwardOnlyGivesTheSameLossAndNoGradient) {
  for (const Recompute r : kPolicies) {
    const Outcome trained = outcome(DType::f32, {.recompute = r});
    const Outcome only = outcome(DType::f32, {.recompute = r, .training = false});
    EXPECT_EQ(only.values[0], trained.values[0]);
    for (std::size_t i = 1; i < only.values.size(); ++i) {
      EXPECT_EQ(only.values[i], std::vector<double>(only.values[i].size(), 0.0));
    }
    EXPECT_LE(only.step, trained.step);
  }
}

// A chain of equal segments: the step memory it takes.
std::size_t run_chain(ops::DryBackend& dry, std::size_t length, SegmentTape::Options options) {
  Arena tensors("tensors"), step("step"), block("block"), scratch("scratch"), host("host");
  dry.use_scratch(scratch);
  const Parameter p{tensors.allocate({64, 4}, DType::f32), tensors.allocate({64, 4}, DType::f32)};
  SegmentTape tape(dry, {step, block, scratch, &host}, options);
  StepVar x = tape.input(p.value);
  for (std::size_t i = 0; i < length; ++i) {
    x = tape.run("chain", {x},
                 [&](Tape& t, std::span<const Var> in) { return add_parameter(t, in[0], p); });
  }
  tape.finish(x, [&](Tape&, const Var& y) { return std::pair(y, p.value); });
  return step.peak();
}

std::size_t chain_peak(std::size_t length, SegmentTape::Options options = {}) {
  ops::DryBackend dry(ops::DeviceTraits{});
  return run_chain(dry, length, options);
}

// Or the next pass would write what a transfer still reads: one begins at once.
TEST(SegmentTape, NothingIsOnItsWayWhenAPassHasEnded) {
  const auto unobserved = SegmentTape::Observer{};
  const SegmentTape::Observer observer = [](const std::string&, const Tensor&) {};
  for (const auto& observe : {unobserved, observer}) {
    ops::DryBackend dry(ops::DeviceTraits{});
    run_chain(dry, 8, {.observe = observe, .points = ops::Place::host});
    const double ended = dry.seconds();
    EXPECT_GT(ended, 0);
    const Tensor t(nullptr, DType::f32, {1000});
    dry.await(dry.offload(t, t));
    EXPECT_DOUBLE_EQ(dry.seconds() - ended,
                     static_cast<double>(t.bytes()) / ops::rates_of("").link);
  }
}

// One value a segment, and one gradient buffer however long the chain: the other is where the last
// value was.
TEST(SegmentTape, GradientBuffersAreHandedOn) {
  constexpr std::size_t kValue = 64 * 4 * sizeof(float);
  for (const std::size_t length : {2u, 3u, 9u})
    EXPECT_EQ(chain_peak(length), (length + 1) * kValue);
}

// Points of two segments, and two gradients; without training a value and its successor.
TEST(SegmentTape, PointsOnTheHostTakeTheSameMemoryForAnyLength) {
  constexpr std::size_t kValue = 64 * 4 * sizeof(float);
  for (const std::size_t length : {4u, 9u, 30u}) {
    EXPECT_EQ(chain_peak(length, {.points = ops::Place::host}), 4 * kValue) << length;
    EXPECT_EQ(chain_peak(length, {.training = false}), 2 * kValue) << length;
  }
}

}  // namespace
}  // namespace medvqa::autograd
