#include "medvqa/nn/linear.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "medvqa/core/philox.h"
#include "tests/support/adapters.h"
#include "tests/support/memory_weights.h"
#include "tests/support/naive.h"
#include "tests/support/test_device.h"

namespace medvqa::nn {
namespace {

using autograd::Tape;
using autograd::TapeOptions;
using autograd::Var;
using testing::MemoryWeights;
using testing::TestDevice;
using Values = std::vector<double>;

constexpr std::int64_t kTokens = 5, kIn = 12, kOut = 7, kRank = 3;
constexpr double kScaling = 1.5;
const TensorRequest kWeight{"layer.weight", {kOut, kIn}, TensorRole::linear, true};

struct Form {
  bool nf4 = false, lora = false, bias = false, residual = false;
  ops::Activation activation = ops::Activation::none;
  double dropout = 0;
  bool last = false, keep_weights = false;
};

// One layer on one device, with everything a run leaves behind.
struct Bench {
  TestDevice device;
  MemoryWeights source;
  Builder builder;
  Linear layer;
  Form form;
  Tensor x, residual, seed, dx, dresidual;

  Bench(DType compute, const Form& f)
      : device(compute, std::size_t{1} << 18),
        source({.dtype = compute, .nf4 = f.nf4}),
        builder(device.backend(), source, device.tensors(), device.tensors(), compute,
                f.lora ? testing::adapt_all(kRank, kScaling, f.dropout) : LoraOptions{},
                QuantizeOnLoad::no),
        layer(builder, "layer", {kOut, kIn, f.bias}, LinearKind::language_mlp),
        form(f),
        x(device.random("x", {kTokens, kIn})),
        residual(device.random("residual", {kTokens, kOut})),
        seed(device.random("seed", {kTokens, kOut})),
        dx(device.tensors().allocate_like(x)),
        dresidual(device.tensors().allocate_like(residual)) {
    testing::fill_adapters(device, builder.modules());
  }

  // y, and with a recording mode all gradients.
  Values run(TapeOptions::Mode mode) {
    Arena::Scope scope(device.block());
    Tape tape(device.backend(), device.block(), device.scratch(),
              {.mode = mode,
               .keep_weights = form.keep_weights,
               .random_key = 99,
               .dropout = form.dropout > 0});
    const Var input = tape.input(x, {dx, false});
    Linear::Epilogue epilogue{.activation = form.activation, .last = form.last};
    if (form.residual) epilogue.residual = tape.input(residual, {dresidual, false});
    const Var y = layer(tape, input, epilogue);
    const Values value = y.value.data == nullptr ? Values{} : device.get(y.value);
    if (mode != TapeOptions::Mode::forward) tape.backward(y, seed);
    EXPECT_EQ(device.scratch().used(), 0u);
    return value;
  }

  const LoraModule& lora() { return *builder.modules().front(); }
  std::vector<std::pair<Tensor, Tensor>> differentiated() {
    std::vector<std::pair<Tensor, Tensor>> pairs{{x, dx}};
    if (form.residual) pairs.emplace_back(residual, dresidual);
    if (form.lora) pairs.emplace_back(lora().a.value, lora().a.grad);
    if (form.lora) pairs.emplace_back(lora().b.value, lora().b.grad);
    return pairs;
  }
  std::vector<Values> gradients() {
    std::vector<Values> all;
    for (const auto& pair : differentiated()) all.push_back(device.get(pair.second));
    return all;
  }
};

std::vector<Form> forms() {
  std::vector<Form> list;
  for (const bool nf4 : {false, true}) {
    for (const bool lora : {false, true}) {
      list.push_back({.nf4 = nf4, .lora = lora});
      list.push_back({.nf4 = nf4, .lora = lora, .bias = true, .residual = true});
      list.push_back(
          {.nf4 = nf4, .lora = lora, .bias = true, .activation = ops::Activation::quick_gelu});
      list.push_back({.nf4 = nf4,
                      .lora = lora,
                      .residual = true,
                      .activation = ops::Activation::gelu_erf,
                      .keep_weights = true});
    }
  }
  list.push_back({.lora = true, .bias = true, .dropout = 0.4});
  list.push_back({.nf4 = true, .lora = true, .residual = true, .dropout = 0.25});
  return list;
}

// The layer's formula in plain f64.
Values plain(Bench& b) {
  const Values x = b.device.get(b.x), r = b.device.get(b.residual);
  Values w = b.source.values(kWeight);
  if (b.form.nf4) {
    const HostNf4 q = *b.source.nf4(kWeight);
    for (std::size_t i = 0; i < w.size(); ++i) {
      const auto byte = static_cast<unsigned>(q.packed.bytes[i / 2]);
      const float code = quant::kNf4Code[i % 2 == 0 ? byte >> 4 : byte & 15u];
      float absmax = 0;
      std::memcpy(&absmax, q.absmax.bytes.data() + i / 64 * 4, 4);
      w[i] = static_cast<double>(BFloat16(code * absmax));
    }
  }
  const Values bias = b.source.values({"layer.bias", {kOut}, TensorRole::bias});
  const Values la = b.form.lora ? b.device.get(b.lora().a.value) : Values{};
  const Values lb = b.form.lora ? b.device.get(b.lora().b.value) : Values{};
  Values y;
  for (std::size_t t = 0; t < kTokens; ++t) {
    for (std::size_t o = 0; o < kOut; ++o) {
      double z = (b.form.bias ? bias[o] : 0) + (b.form.residual ? r[t * kOut + o] : 0);
      for (std::size_t i = 0; i < kIn; ++i) z += x[t * kIn + i] * w[o * kIn + i];
      for (std::size_t k = 0; b.form.lora && k < kRank; ++k) {
        for (std::size_t i = 0; i < kIn; ++i) {
          const std::size_t e = t * kIn + i;
          const double word = philox4x32(99, 0, e / 4)[e % 4];
          const bool kept = word >= std::floor(b.form.dropout * 0x1p32);
          const double dropped = kept ? x[e] / (1 - b.form.dropout) : 0.0;
          z += kScaling * dropped * la[k * kIn + i] * lb[o * kRank + k];
        }
      }
      y.push_back(testing::naive::activation(b.form.activation, z));
    }
  }
  return y;
}

TEST(Linear, IsItsFormula) {
  for (const Form& f : forms()) {
    Bench b(DType::f64, f);
    const Values y = b.run(TapeOptions::Mode::forward), expected = plain(b);
    for (std::size_t i = 0; i < y.size(); ++i) ASSERT_NEAR(y[i], expected[i], 1e-12);
  }
}

TEST(Linear, GradientsAgreeWithDifferences) {
  for (const Form& f : forms()) {
    Bench b(DType::f64, f);
    b.run(TapeOptions::Mode::record);
    const std::vector<Values> gradients = b.gradients();
    const Values seed = b.device.get(b.seed);
    const auto pairs = b.differentiated();
    for (std::size_t p = 0; p < pairs.size(); ++p) {
      const Tensor& t = pairs[p].first;
      const auto loss = [&](const Values& moved) {
        b.device.set(t, moved);
        const Values y = b.run(TapeOptions::Mode::forward);
        double sum = 0;
        for (std::size_t i = 0; i < y.size(); ++i) sum += y[i] * seed[i];
        return sum;
      };
      const Values at = b.device.get(t);
      for (const auto& line :
           testing::compare_with_differences(std::to_string(p), at, gradients[p], 20, loss)) {
        ADD_FAILURE() << line << " nf4 " << f.nf4 << " lora " << f.lora << " dropout " << f.dropout;
      }
      b.device.set(t, at);
    }
  }
}

TEST(Linear, KeepingWeightsAndLeavingTheLastProductOutChangeNoBit) {
  for (const DType type : {DType::f64, DType::f32, DType::bf16, DType::f16}) {
    for (Form f : {Form{.nf4 = true, .lora = true, .residual = true},
                   Form{.lora = true, .bias = true, .dropout = 0.3}}) {
      Bench recorded(type, f);
      const Values y = recorded.run(TapeOptions::Mode::record);
      f.last = true;
      f.keep_weights = true;
      Bench replayed(type, f);
      EXPECT_EQ(replayed.run(TapeOptions::Mode::forward), y);  // the mask of dropout repeats
      EXPECT_TRUE(replayed.run(TapeOptions::Mode::replay).empty());
      EXPECT_EQ(replayed.gradients(), recorded.gradients());
    }
  }
}

TEST(Linear, AdapterGradientsAddUp) {
  Bench b(DType::f64, {.lora = true});
  b.run(TapeOptions::Mode::record);
  const std::vector<Values> once = b.gradients();
  b.run(TapeOptions::Mode::record);
  const std::vector<Values> twice = b.gradients();
  EXPECT_EQ(twice[0], once[0]);  // dx is overwritten
  for (const std::size_t i : {std::size_t{1}, std::size_t{2}}) {
    for (std::size_t e = 0; e < once[i].size(); ++e) {
      EXPECT_NEAR(twice[i][e], 2 * once[i][e], 1e-13);
    }
  }
}

TEST(Linear, AZeroAdapterIsNoAdapter) {
  for (const DType type : {DType::f32, DType::bf16}) {
    Bench with(type, {.nf4 = true, .lora = true, .bias = true});
    Bench without(type, {.nf4 = true, .bias = true});
    with.device.backend().fill(with.lora().b.value, 0);
    EXPECT_EQ(with.run(TapeOptions::Mode::forward), without.run(TapeOptions::Mode::forward));
  }
}

// In f16 y joins residuals that f16 cannot hold; gradients are those of the layer by itself.
TEST(Linear, AddsToAnF32ResidualInF16) {
  constexpr double kResidual = 1e5;
  TestDevice d(DType::f16, std::size_t{1} << 18);
  MemoryWeights source({.dtype = DType::f16});
  Builder builder(d.backend(), source, d.tensors(), d.tensors(), DType::f16,
                  testing::adapt_all(kRank, kScaling), QuantizeOnLoad::no);
  const Linear layer(builder, "layer", {kOut, kIn, true}, LinearKind::language_mlp);
  const Tensor x = d.random("x", {kTokens, kIn});
  const Tensor residual = d.put(Values(kTokens * kOut, kResidual), {kTokens, kOut}, DType::f32);
  const Tensor seed = d.random("seed", {kTokens, kOut});
  const Tensor wide_seed = d.put(d.get(seed), {kTokens, kOut}, DType::f32);
  struct Run {
    Values y, dx, da, db;
  };
  const auto run = [&](bool with_residual, bool joins) {
    testing::fill_adapters(d, builder.modules());
    Tape t(d.backend(), d.block(), d.scratch(), {.mode = TapeOptions::Mode::record});
    const Tensor dx = d.tensors().allocate_like(x), dresidual = d.tensors().allocate_like(residual);
    Linear::Epilogue epilogue{.joins_residual = joins};
    if (with_residual) epilogue.residual = t.input(residual, {dresidual, false});
    const Var y = layer(t, t.input(x, {dx, false}), epilogue);
    const bool wide = with_residual || joins;
    EXPECT_EQ(y.value.dtype, wide ? DType::f32 : DType::f16);
    t.backward(y, wide ? wide_seed : seed);
    if (with_residual) {
      EXPECT_EQ(d.get(dresidual), d.get(seed));
    }
    const LoraModule& m = *builder.modules().front();
    EXPECT_EQ(d.scratch().used(), 0u);
    return Run{d.get(y.value), d.get(dx), d.get(m.a.grad), d.get(m.b.grad)};
  };
  const Run plain = run(false, false), joined = run(false, true), added = run(true, false);
  for (std::size_t i = 0; i < plain.y.size(); ++i) {
    // Two sums rounded to f16, and as many roundings of f32 at the residual's size.
    EXPECT_NEAR(plain.y[i], joined.y[i], 2 * 8 * roundoff(DType::f16));
    EXPECT_NEAR(added.y[i] - kResidual, joined.y[i], 2 * 1.1 * kResidual * roundoff(DType::f32));
  }
  for (const Run* r : {&joined, &added}) {
    EXPECT_EQ(r->dx, plain.dx);
    EXPECT_EQ(r->da, plain.da);
    EXPECT_EQ(r->db, plain.db);
  }
}

TEST(Linear, FrozenLayersPassGradientsOnlyToTheirInput) {
  TestDevice d(DType::f32, 65536);
  MemoryWeights source({.dtype = DType::f32});
  Builder builder(d.backend(), source, d.tensors(), d.tensors(), DType::f32, {},
                  QuantizeOnLoad::no);
  const Linear layer(builder, "layer", {kOut, kIn, true}, LinearKind::other);
  Tape tape(d.backend(), d.block(), d.scratch(), {.mode = TapeOptions::Mode::record});
  EXPECT_FALSE(tape.needs_grad(layer(tape, tape.input(d.random("x", {2, kIn})))));
  EXPECT_TRUE(builder.modules().empty());
}

}  // namespace
}  // namespace medvqa::nn
