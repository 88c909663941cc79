#include "medvqa/nn/builder.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>

#include "medvqa/nn/linear.h"
#include "medvqa/nn/norm.h"
#include "medvqa/ops/dry_backend.h"
#include "tests/quant/golden.h"
#include "tests/support/adapters.h"
#include "tests/support/memory_weights.h"
#include "tests/support/test_device.h"

namespace medvqa::nn {
namespace {

using autograd::Tape;
using autograd::TapeOptions;
using autograd::Var;
using testing::MemoryWeights;
using testing::TestDevice;
using Values = std::vector<double>;

constexpr std::int64_t kIn = 96;
constexpr std::array<std::int64_t, 3> kOuts{20, 6, 9};

std::vector<Linear> three_layers(Builder& b) {
  std::vector<Linear> layers;
  for (std::size_t i = 0; i < kOuts.size(); ++i) {
    layers.emplace_back(b, "layer" + std::to_string(i), LinearShape{kOuts[i], kIn, i != 1},
                        LinearKind::language_attention);
  }
  return layers;
}

struct GroupCase {
  bool nf4 = false;
  double dropout = 0;
  bool frozen_middle = false;
};

// Outputs side by side, then dx, then every adapter gradient. The seed of the group is the seeds
// of the layers side by side.
std::vector<Values> run_layers(DType type, bool grouped, const GroupCase& c,
                               ops::Profile* profile = nullptr) {
  TestDevice d(type, std::size_t{1} << 19);
  MemoryWeights source({.dtype = type, .nf4 = c.nf4});
  LoraOptions adapters = testing::adapt_all(4, 0.5, c.dropout);
  if (c.frozen_middle) {
    adapters.adapts = [](const std::string& name, LinearKind) { return name != "layer1"; };
  }
  Builder b(d.backend(), source, d.tensors(), d.tensors(), type, adapters, QuantizeOnLoad::no);
  const std::vector<Linear> layers = three_layers(b);
  testing::fill_adapters(d, b.modules());
  constexpr std::int64_t kTokens = 6;
  const Tensor x = d.random("x", {kTokens, kIn}, 0.2);
  const Tensor dx = d.tensors().allocate_like(x);
  const Tensor seed = d.random("seed", {kTokens, 35}, 0.2);
  const Tensor y = d.tensors().allocate_like(seed);
  d.backend().use_profile(profile);
  if (grouped) {
    Tape t(d.backend(), d.block(), d.scratch(),
           {.mode = TapeOptions::Mode::record, .random_key = 5, .dropout = true});
    const std::array<const Linear*, 3> group{&layers[0], &layers[1], &layers[2]};
    const Var out = linear_group(t, t.input(x, {dx, false}), group);
    d.backend().copy(out.value, y);
    t.backward(out, seed);
  } else {
    std::int64_t begin = 0;
    for (const Linear& layer : layers) {
      Tape t(d.backend(), d.block(), d.scratch(),
             {.mode = TapeOptions::Mode::record, .random_key = 5, .dropout = true});
      const Var out = layer(t, t.input(x, {dx, begin > 0}));
      d.backend().copy(out.value, y.columns(begin, begin + layer.out()));
      const Tensor part = d.tensors().allocate_like(out.value);
      d.backend().copy(seed.columns(begin, begin + layer.out()), part);
      t.backward(out, part);
      begin += layer.out();
    }
  }
  d.backend().use_profile(nullptr);
  std::vector<Values> all{d.get(y), d.get(dx)};
  for (const auto& m : b.modules()) {
    all.push_back(d.get(m->a.grad));
    all.push_back(d.get(m->b.grad));
  }
  return all;
}

// But for the order of the sums.
TEST(LinearGroup, IsTheLayersOneByOne) {
  for (const GroupCase& c : {GroupCase{}, GroupCase{.nf4 = true}, GroupCase{.frozen_middle = true},
                             GroupCase{.dropout = 0.2}, GroupCase{.nf4 = true, .dropout = 0.2},
                             GroupCase{.dropout = 0.2, .frozen_middle = true}}) {
    for (const DType type : {DType::f64, DType::f32, DType::bf16, DType::f16}) {
      const auto grouped = run_layers(type, true, c), apart = run_layers(type, false, c);
      ASSERT_EQ(grouped.size(), c.frozen_middle ? 6u : 8u);
      for (std::size_t i = 0; i < grouped.size(); ++i) {
        double largest = 0;
        // The sums differ; what 16 bits keep of them may round to a neighbour, again in dx.
        const DType sums = type == DType::f64 ? DType::f64 : DType::f32;
        const double allowed = 4 * roundoff(type) + 6 * std::sqrt(kIn) * roundoff(sums);
        for (const double v : apart[i]) largest = std::max(largest, std::fabs(v));
        EXPECT_GT(largest, 0);
        for (std::size_t e = 0; e < grouped[i].size(); ++e) {
          ASSERT_NEAR(grouped[i][e], apart[i][e], allowed * largest) << name_of(type);
        }
      }
    }
  }
}

// Three layers: y, dx, u B', v = dy B and dB each, and x A', dA and v A in one product if they can.
TEST(LinearGroup, SharesTheProductsWithX) {
  const auto products = [](const GroupCase& c, bool grouped) {
    ops::Profile profile;
    run_layers(DType::f32, grouped, c, &profile);
    return profile.entries().at("gemm").calls;
  };
  EXPECT_EQ(products({}, true), 5 * 3 + 3);
  EXPECT_EQ(products({}, false), 5 * 3 + 3 * 3);
  EXPECT_EQ(products({.frozen_middle = true}, true), 2 * 3 + 3 * 2 + 3);
  EXPECT_EQ(products({.dropout = 0.2}, true), 5 * 3 + 3 * 3);
}

// One tensor in the type bitsandbytes was given it in.
class GoldenWeight : public WeightSource {
 public:
  GoldenWeight(const std::string& name, DType type) : type_(type) {
    const std::string key = name + ".weight";
    if (type == DType::f32) bytes_ = bytes_of(quant::golden().raw<float>(key));
    if (type != DType::f32) bytes_ = bytes_of(quant::golden().raw<std::uint16_t>(key));
  }
  bool contains(const std::string&) const override { return true; }
  HostTensor dense(const TensorRequest& r) const override { return {type_, r.shape, bytes_}; }
  std::optional<HostNf4> nf4(const TensorRequest&) const override { return std::nullopt; }

 private:
  template <class T>
  static std::vector<std::byte> bytes_of(const std::vector<T>& values) {
    const auto view = std::as_bytes(std::span(values));
    return {view.begin(), view.end()};
  }
  DType type_;
  std::vector<std::byte> bytes_;
};

std::vector<std::uint8_t> bytes_of(TestDevice& d, const Tensor& t) {
  std::vector<std::uint8_t> bytes(t.bytes());
  d.backend().download(t, bytes.data(), bytes.size());
  return bytes;
}

std::vector<std::uint8_t> golden_bytes(const std::string& name) {
  return quant::golden().raw<std::uint8_t>(name);
}

// A dense checkpoint quantised while loading is bit for bit what bitsandbytes makes of it.
TEST(Builder, QuantizeOnLoadIsBitsandbytes) {
  const TensorRequest request{"w", {96, 160}, TensorRole::linear, true};
  for (const QuantizeOnLoad how : {QuantizeOnLoad::nf4, QuantizeOnLoad::nf4_nested}) {
    for (const DType type : {DType::f32, DType::bf16, DType::f16}) {
      const std::string name =
          (how == QuantizeOnLoad::nf4 ? "nf4_" : "nf4_nested_") + std::string(name_of(type));
      TestDevice d(type, std::size_t{1} << 18);
      const GoldenWeight source(name, type);
      Builder b(d.backend(), source, d.tensors(), d.tensors(), type, {}, how);
      const auto w = b.nf4(request);
      ASSERT_TRUE(w.has_value());
      EXPECT_EQ(w->rounded_to, type);
      EXPECT_EQ(bytes_of(d, w->packed), golden_bytes(name + ".packed"));
      EXPECT_EQ(bytes_of(d, w->absmax), golden_bytes(name + ".absmax"));
      if (how == QuantizeOnLoad::nf4_nested) {
        EXPECT_EQ(bytes_of(d, w->nested_absmax), golden_bytes(name + ".nested_absmax"));
        EXPECT_EQ(bytes_of(d, w->nested_map), golden_bytes("map.signed"));
        EXPECT_EQ(w->nested_offset, quant::golden().floats(name + ".offset").at(0));
      }
      EXPECT_EQ(b.count().frozen, 96 * 160);
      // Only linears of blocks.
      EXPECT_FALSE(b.nf4({"head", {96, 160}, TensorRole::linear, false}).has_value());
    }
  }
}

TEST(Builder, DenseTensorsAreConvertedAndRefusedIfNotFloating) {
  TestDevice d(DType::bf16, 65536);
  MemoryWeights source({.dtype = DType::f32});
  Builder b(d.backend(), source, d.tensors(), d.tensors(), DType::bf16, {}, QuantizeOnLoad::no);
  const TensorRequest request{"conv.weight", {4, 3, 2, 2, 2}, TensorRole::linear};
  Values expected = source.values(request);
  for (double& v : expected) v = static_cast<double>(BFloat16(static_cast<float>(v)));
  EXPECT_EQ(d.get(b.dense(request, {4, 24})), expected);
  struct Bytes : MemoryWeights {
    using MemoryWeights::MemoryWeights;
    HostTensor dense(const TensorRequest& r) const override { return {DType::u8, r.shape, {}}; }
  } const wrong{MemoryWeights::Options{}};
  Builder other(d.backend(), wrong, d.tensors(), d.tensors(), DType::bf16, {}, QuantizeOnLoad::no);
  try {
    other.dense(request, {4, 24});
    FAIL();
  } catch (const UserError& e) {
    EXPECT_EQ(e.code(), ExitCode::model);
    EXPECT_NE(std::string(e.what()).find("conv.weight"), std::string::npos);
  }
}

TEST(Builder, CountsAndStreamsOfAdapters) {
  TestDevice d(DType::f32, std::size_t{1} << 18);
  MemoryWeights source({.dtype = DType::f32});
  Builder b(d.backend(), source, d.tensors(), d.tensors(), DType::f32,
            testing::adapt_all(4, 2, 0.1), QuantizeOnLoad::no);
  three_layers(b);
  const Linear head(b, "head", {5, kIn, false}, LinearKind::other);
  ASSERT_EQ(b.modules().size(), 3u);
  EXPECT_EQ(b.count().trainable, 4 * (3 * kIn + 35));
  EXPECT_EQ(b.count().frozen, 35 * kIn + 29 + 5 * kIn);
  for (std::size_t i = 0; i < 3; ++i) {
    const LoraModule& m = *b.modules()[i];
    EXPECT_EQ(m.name, "layer" + std::to_string(i));
    EXPECT_EQ(m.stream, i);
    EXPECT_EQ(m.a.value.shape, (Shape{4, kIn}));
    EXPECT_EQ(m.b.grad.shape, (Shape{kOuts[i], 4}));
    EXPECT_EQ(m.scaling, 2);
  }
}

// What a plan without files measures is what a load with files takes.
TEST(DescribedWeights, MeasureTheSameMemoryAsRealOnes) {
  for (const bool nested : {false, true}) {
    TestDevice d(DType::bf16, std::size_t{1} << 18);
    MemoryWeights stored({.dtype = DType::bf16, .nf4 = true, .nested = nested});
    Builder real(d.backend(), stored, d.tensors(), d.step(), DType::bf16, testing::adapt_all(4, 1),
                 QuantizeOnLoad::no);
    three_layers(real);

    DescribedWeights::Options options;
    options.nf4 = true;
    options.nested = nested;
    const DescribedWeights described(options);
    ops::DryBackend dry(d.backend().traits());
    Arena weights("weights"), adapters("adapters");
    Builder plan(dry, described, weights, adapters, DType::bf16, testing::adapt_all(4, 1),
                 QuantizeOnLoad::no);
    three_layers(plan);
    EXPECT_EQ(weights.peak(), d.tensors().peak());
    EXPECT_EQ(adapters.peak(), d.step().peak());
    EXPECT_EQ(plan.count().frozen, real.count().frozen);
    EXPECT_EQ(plan.count().trainable, real.count().trainable);
    EXPECT_EQ(described.requests().size(), 5u);  // three weights, two biases
  }
}

TEST(DescribedWeights, ListsEachTensorOnceAndHonoursStaysDense) {
  DescribedWeights::Options options;
  options.nf4 = true;
  options.stays_dense = [](const std::string& name) { return name == "b"; };
  const DescribedWeights w(options);
  EXPECT_TRUE(w.nf4({"a", {10, 33}, TensorRole::linear, true}).has_value());
  EXPECT_FALSE(w.nf4({"b", {10, 33}, TensorRole::linear, true}).has_value());
  EXPECT_FALSE(w.nf4({"c", {10, 33}, TensorRole::linear, false}).has_value());
  w.dense({"b", {10, 33}});
  w.dense({"b", {10, 33}});
  ASSERT_EQ(w.requests().size(), 2u);
  const HostNf4 a = *w.nf4({"a", {10, 33}, TensorRole::linear, true});
  EXPECT_EQ(a.packed.shape, (std::vector<std::int64_t>{165, 1}));
  EXPECT_EQ(a.absmax.shape, (std::vector<std::int64_t>{6}));
  EXPECT_EQ(a.absmax.dtype, DType::u8);
  EXPECT_EQ(a.nested_absmax.shape, (std::vector<std::int64_t>{1}));
}

TEST(Norms, ReadTheirTensors) {
  TestDevice d(DType::f64, 65536);
  MemoryWeights source({.dtype = DType::f64});
  Builder b(d.backend(), source, d.tensors(), d.tensors(), DType::f64, {}, QuantizeOnLoad::no);
  const RmsNorm rms(b, "rms", 5, 1e-6);
  const LayerNorm layer(b, "layer", 5, 1e-6);
  Tape t(d.backend(), d.block(), d.scratch(), {});
  const Var x = t.input(d.put({3, 3, 3, 3, 3}, {1, 5}));
  const Values w = source.values({"rms.weight", {5}, TensorRole::norm});
  const Values bias = source.values({"layer.bias", {5}, TensorRole::bias});
  const Values y = d.get(rms(t, x).value), z = d.get(layer(t, x).value);
  for (std::size_t i = 0; i < 5; ++i) {
    EXPECT_NEAR(y[i], w[i], 1e-6);
    EXPECT_NEAR(z[i], bias[i], 1e-6);  // a constant row has no deviation
  }
}

}  // namespace
}  // namespace medvqa::nn
