// Gradients of small compositions against differences in f64: values read twice, blocks of
// columns, samples of unequal length, gradients that are added to what is there.
#include "medvqa/autograd/functions.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "tests/support/random_values.h"
#include "tests/support/test_device.h"

namespace medvqa::autograd {
namespace {

using medvqa::testing::TestDevice;
using Values = std::vector<double>;

class Functions : public ::testing::Test {
 protected:
  using Composition = std::function<Var(Tape&, std::span<const Var>)>;

  double dot(const Values& y) const {
    double sum = 0;
    for (std::size_t i = 0; i < y.size(); ++i) sum += y[i] * weights_[i];
    return sum;
  }

  Values forward(const std::vector<Values>& values, const std::vector<Shape>& shapes,
                 const Composition& f) {
    Arena::Scope inputs(device_.tensors());
    Arena::Scope scope(device_.block());
    Tape tape(device_.backend(), device_.block(), device_.scratch(), {});
    std::vector<Var> vars;
    for (std::size_t i = 0; i < values.size(); ++i) {
      vars.push_back(tape.input(device_.put(values[i], shapes[i])));
    }
    return device_.get(f(tape, vars).value);
  }

  // Gradients of sum weights * y, on top of what `before` holds in every gradient.
  std::vector<Values> gradients(const std::vector<Values>& values, const std::vector<Shape>& shapes,
                                const Composition& f, double before) {
    Arena::Scope inputs(device_.tensors());
    Arena::Scope scope(device_.block());
    Tape tape(device_.backend(), device_.block(), device_.scratch(),
              {.mode = TapeOptions::Mode::record});
    std::vector<Var> vars;
    std::vector<Tensor> grads;
    for (std::size_t i = 0; i < values.size(); ++i) {
      grads.push_back(device_.put(Values(values[i].size(), before), shapes[i]));
      vars.push_back(tape.input(device_.put(values[i], shapes[i]), {grads[i], before != 0}));
    }
    const Var y = f(tape, vars);
    tape.backward(y, device_.put(weights_, y.value.shape));
    std::vector<Values> all;
    for (const Tensor& g : grads) all.push_back(device_.get(g));
    EXPECT_EQ(device_.scratch().used(), 0u);
    return all;
  }

  void check(const std::vector<Shape>& shapes, const Composition& f) {
    std::vector<Values> values;
    for (std::size_t i = 0; i < shapes.size(); ++i) {
      values.push_back(testing::random_values("input" + std::to_string(i), shapes[i].elements()));
    }
    weights_.clear();
    const Values y = forward(values, shapes, f);
    weights_ = testing::random_values("weights", static_cast<std::int64_t>(y.size()));
    double size = 0;
    for (std::size_t i = 0; i < y.size(); ++i) size += std::fabs(y[i] * weights_[i]);
    for (const double before : {0.0, 0.75}) {
      const auto found = gradients(values, shapes, f, before);
      for (std::size_t i = 0; i < shapes.size(); ++i) {
        Values gradient = found[i];
        for (double& g : gradient) g -= before;
        const auto loss = [&](const Values& x) {
          std::vector<Values> moved = values;
          moved[i] = x;
          return dot(forward(moved, shapes, f));
        };
        for (const std::string& line : testing::compare_with_differences(
                 "input " + std::to_string(i), values[i], gradient, size, loss)) {
          ADD_FAILURE() << line << " (before: " << before << ")";
        }
      }
    }
  }

  Segments segments(const std::vector<std::int32_t>& cu, std::int64_t longest) {
    return {device_.integers(cu), longest};
  }
  RotaryAngles angles(std::int64_t tokens, std::int64_t pairs) {
    const auto table = testing::random_values("angle", tokens * pairs, -3, 3);
    Values cosines, sines;
    for (const double a : table) {
      cosines.push_back(std::cos(a));
      sines.push_back(std::sin(a));
    }
    return {device_.put(cosines, {tokens, pairs}, DType::f32),
            device_.put(sines, {tokens, pairs}, DType::f32)};
  }

  TestDevice device_{DType::f64};
  Values weights_;
};

TEST_F(Functions, RmsNorm) {
  const Tensor w = device_.random("w", {7});
  check({{3, 7}}, [&](Tape& t, auto in) { return rms_norm(t, in[0], w, 1e-5); });
}

TEST_F(Functions, LayerNorm) {
  const Tensor w = device_.random("w", {7});
  const Tensor b = device_.random("b", {7});
  check({{3, 7}}, [&](Tape& t, auto in) { return layer_norm(t, in[0], w, b, 1e-5); });
}

TEST_F(Functions, Activations) {
  for (const auto kind : {ops::Activation::gelu_erf, ops::Activation::gelu_tanh,
                          ops::Activation::quick_gelu, ops::Activation::silu}) {
    check({{2, 5}},
          [&](Tape& t, auto in) { return activation(t, activation(t, in[0], kind), kind); });
  }
}

TEST_F(Functions, SwiGluThroughAView) {
  const Tensor w = device_.random("w", {4});
  check({{6, 4}}, [&](Tape& t, auto in) {
    const Var h = rms_norm(t, in[0], w, 1e-5);
    return swiglu(t, t.view(h, {3, 8}));
  });
}

// Queries, keys and values are blocks of one value, rotated in place; groups of two heads share a
// key; three samples.
TEST_F(Functions, RotaryAndPackedAttention) {
  const std::int64_t tokens = 8, size = 4;
  const RotaryAngles table = angles(tokens, size / 2);
  const Segments samples = segments({0, 3, 4, 8}, 4);
  for (const bool causal : {false, true}) {
    check({{tokens, 6 * size}}, [&](Tape& t, auto in) {
      const Var packed = rotary(t, activation(t, in[0], ops::Activation::silu), 5, size, table);
      return attention(
          t, {packed, 0, 4}, {packed, 4 * size, 1}, {packed, 5 * size, 1},
          {.head_size = size, .causal = causal, .scale = 0.5, .queries = samples, .keys = samples});
    });
  }
}

// Two readers of one value: an activation on the way to the queries, and keys and values.
TEST_F(Functions, FanOutAddsUp) {
  const std::int64_t size = 4;
  const Segments samples = segments({0, 2, 5}, 3);
  const Tensor w = device_.random("w", {2 * size});
  check({{5, 2 * size}}, [&](Tape& t, auto in) {
    const Var h = rms_norm(t, in[0], w, 1e-5);
    const Var q = activation(t, h, ops::Activation::gelu_tanh);
    const Var y = attention(t, {q, 0, 2}, {h, 0, 1}, {h, size, 1},
                            {.head_size = size, .scale = 0.7, .queries = samples, .keys = samples});
    return attention(t, {y, 0, 2}, {h, 0, 1}, {h, size, 1},
                     {.head_size = size, .scale = 0.7, .queries = samples, .keys = samples});
  });
}

TEST_F(Functions, CrossAttentionOfUnequalLengths) {
  const std::int64_t size = 3;
  const Segments queries = segments({0, 2, 3}, 2);
  const Segments keys = segments({0, 1, 5}, 4);
  check({{3, 2 * size}, {5, 4 * size}}, [&](Tape& t, auto in) {
    return attention(t, {in[0], 0, 2}, {in[1], 0, 2}, {in[1], 2 * size, 2},
                     {.head_size = size, .scale = 0.6, .queries = queries, .keys = keys});
  });
}

// A mask of rectangles: overlapping keys, keys nobody reads, a query row that sees nothing.
TEST_F(Functions, AttentionInParts) {
  const std::int64_t size = 3;
  const auto part = [&](RowRange q, RowRange k) {
    return AttentionPart{q, k, segments({0, static_cast<std::int32_t>(q.size())}, q.size()),
                         segments({0, static_cast<std::int32_t>(k.size())}, k.size())};
  };
  const AttentionShape shape{.head_size = size, .scale = 0.6};
  // As in mllama's vision tower: later keys lie inside earlier ones, and every row is written.
  const std::vector<AttentionPart> whole{part({0, 3}, {0, 5}), part({3, 5}, {0, 3})};
  check({{5, 6 * size}}, [&](Tape& t, auto in) {
    const Var h = activation(t, in[0], ops::Activation::silu);
    return attention(t, {h, 0, 2}, {h, 2 * size, 2}, {h, 4 * size, 2}, shape, whole);
  });
  const std::vector<std::vector<AttentionPart>> partial{
      {part({0, 1}, {1, 3}), part({2, 3}, {1, 5})},
      {part({0, 2}, {1, 4}), part({3, 4}, {0, 2}), part({2, 3}, {1, 2})},
      {part({1, 2}, {0, 5})},
      {}};
  for (const auto& parts : partial) {
    check({{4, 2 * size}, {6, size}, {6, size}}, [&](Tape& t, auto in) {
      return attention(t, {in[0], 0, 2}, {in[1], 0, 1}, {in[2], 0, 1}, shape, parts);
    });
  }
}

// The dense mask, written out: what a part allows, everything else shut.
TEST_F(Functions, AttentionInPartsIsTheDenseMask) {
  constexpr std::int64_t kRows = 7, kMiddle = 4, kSize = 3;
  const Tensor packed = device_.random("packed", {kRows, 3 * kSize});
  const auto ends = [&](std::int64_t n) { return segments({0, static_cast<std::int32_t>(n)}, n); };
  const std::vector<AttentionPart> parts{
      {{0, kMiddle}, {0, kRows}, ends(kMiddle), ends(kRows)},
      {{kMiddle, kRows}, {0, kMiddle}, ends(kRows - kMiddle), ends(kMiddle)}};
  Tape tape(device_.backend(), device_.block(), device_.scratch(), {});
  const Var x = tape.input(packed);
  const Var y = attention(tape, {x, 0, 1}, {x, kSize, 1}, {x, 2 * kSize, 1},
                          {.head_size = kSize, .scale = 0.5}, parts);
  const Values v = device_.get(packed), found = device_.get(y.value);
  const auto at = [&](std::int64_t row, std::int64_t column) {
    return v[static_cast<std::size_t>(row * 3 * kSize + column)];
  };
  for (std::int64_t q = 0; q < kRows; ++q) {
    Values sum(kSize, 0.0);
    double total = 0;
    for (std::int64_t k = 0; k < kRows; ++k) {
      if (q >= kMiddle && k >= kMiddle) continue;
      double score = 0;
      for (std::int64_t d = 0; d < kSize; ++d) score += 0.5 * at(q, d) * at(k, kSize + d);
      total += std::exp(score);
      for (std::int64_t d = 0; d < kSize; ++d) {
        sum[static_cast<std::size_t>(d)] += std::exp(score) * at(k, 2 * kSize + d);
      }
    }
    for (std::int64_t d = 0; d < kSize; ++d) {
      EXPECT_NEAR(found[static_cast<std::size_t>(q * kSize + d)],
                  sum[static_cast<std::size_t>(d)] / total, 1e-14);
    }
  }
}

TEST_F(Functions, ScaledResidual) {
  const Tensor rows = device_.put({1, 0, -0.5}, {3});
  for (const Tensor& scale : {Tensor{}, rows}) {
    check({{3, 4}, {3, 4}}, [&](Tape& t, auto in) {
      const Var z = add_scaled(t, in[0], in[1], {.factor = -0.75, .scale_T = scale});
      return add_scaled(t, z, z, {.factor = 0.25});
    });
  }
}

TEST_F(Functions, JoinInterleaved) {
  check({{3, 2}, {3, 4}, {3, 4}}, [&](Tape& t, auto in) {
    const Var other = activation(t, in[1], ops::Activation::silu);
    const std::vector<Var> others{other, in[2], in[1]};
    return join_interleaved(t, in[0], others);
  });
  Tape tape(device_.backend(), device_.block(), device_.scratch(), {});
  const std::vector<Var> others{tape.input(device_.put({1, 2}, {1, 2})),
                                tape.input(device_.put({3, 4}, {1, 2}))};
  const Var first = tape.input(device_.put({9}, {1, 1}));
  EXPECT_EQ(device_.get(join_interleaved(tape, first, others).value), (Values{9, 1, 3, 2, 4}));
  EXPECT_EQ(device_.get(join_interleaved(tape, first, {}).value), Values{9});
}

// Rows chosen twice from one value: the second gradient is added to rows the first wrote.
TEST_F(Functions, GatherTwiceOverlapping) {
  const std::int64_t size = 4;
  const Tensor first = device_.integers({4, 1, 2});
  const Tensor second = device_.integers({0, 2, 1});
  const Segments samples = segments({0, 3}, 3);
  check({{6, 2 * size}}, [&](Tape& t, auto in) {
    const Var q = gather_rows(t, in[0], first);
    const Var kv = gather_rows(t, in[0], second);
    return attention(t, {q, 0, 2}, {kv, 0, 1}, {kv, size, 1},
                     {.head_size = size, .scale = 0.5, .queries = samples, .keys = samples});
  });
}

TEST_F(Functions, SpliceThenGather) {
  const Tensor base = device_.random("base", {6, 3});
  const Tensor places = device_.integers({5, 0});
  const Tensor chosen = device_.integers({5, 1, 0, 3});
  const Tensor w = device_.random("w", {3});
  check({{2, 3}}, [&](Tape& t, auto in) {
    const Var x = splice(t, base, activation(t, in[0], ops::Activation::silu), places);
    return rms_norm(t, gather_rows(t, x, chosen), w, 1e-5);
  });
  // The features themselves are an input: their gradient may hold something already.
  check({{2, 3}}, [&](Tape& t, auto in) { return splice(t, base, in[0], places); });
}

TEST(Convert, HandsGradientsBackInTheTypeOfItsInput) {
  TestDevice d(DType::f16, 65536);
  const Shape shape{3, 5};
  const Tensor seed = d.random("seed", shape);
  const Tensor dx = d.put(Values(15, 1.0), shape, DType::f32);
  Tape t(d.backend(), d.block(), d.scratch(), {.mode = TapeOptions::Mode::record});
  const Var x = t.input(d.put(d.get(d.random("x", shape)), shape, DType::f32), {dx, true});
  EXPECT_EQ(convert(t, x, DType::f32).id, x.id);
  const Var once = convert(t, x, DType::f16), again = convert(t, x, DType::f16);
  EXPECT_EQ(once.value.dtype, DType::f16);
  EXPECT_EQ(d.get(once.value), d.get(x.value));
  t.backward(add_scaled(t, once, again, {}), seed);
  Values expected = d.get(seed);
  for (double& v : expected) v = 1 + 2 * v;
  EXPECT_EQ(d.get(dx), expected);
  EXPECT_EQ(d.scratch().used(), 0u);
}

TEST_F(Functions, WithoutGradientsNothingIsRemembered) {
  const Tensor w = device_.random("w", {4});
  const Tensor x = device_.random("x", {2, 4});
  Tape tape(device_.backend(), device_.block(), device_.scratch(),
            {.mode = TapeOptions::Mode::record});
  const Var y = rms_norm(tape, tape.input(x), w, 1e-5);
  EXPECT_FALSE(tape.needs_grad(y));
  const std::size_t used = device_.block().used();
  tape.backward(y, device_.random("seed", {2, 4}));
  EXPECT_EQ(device_.block().used(), used);
}

TEST_F(Functions, BackwardOnAForwardTapeIsRefused) {
  Tape tape(device_.backend(), device_.block(), device_.scratch(), {});
  const Var x = tape.input(device_.random("x", {2, 4}), {device_.random("g", {2, 4}), false});
  const Var y = activation(tape, x, ops::Activation::silu);
  EXPECT_THROW(tape.backward(y, device_.random("seed", {2, 4})), InternalError);
}

}  // namespace
}  // namespace medvqa::autograd
