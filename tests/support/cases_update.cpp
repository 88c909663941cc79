#include <fmt/format.h>

#include <cmath>

#include "medvqa/quant/adamw8bit.h"
#include "tests/support/cases.h"
#include "tests/support/random_values.h"

namespace medvqa::testing {

namespace {

struct NormOptions {
  std::string name;
  std::vector<std::int64_t> sizes;
  std::int64_t lead = 0;  // elements between an aligned address and each tensor
};

OpCase make(const NormOptions& o) {
  OpCase c("global_norm_" + o.name);
  for (const std::int64_t n : o.sizes) {
    const int t = c.input(fmt::format("t{}", n), {1, n}, fixed(DType::f32));
    c.stride(t, o.lead, 0);
  }
  const int norm = c.output("norm", {1}, fixed(DType::f32));
  c.run = [=](ops::Backend& b, const Tensors& t) {
    b.global_norm(std::span(t.data(), o.sizes.size()), t[at(norm)]);
  };
  c.oracle = [=](const Values& v, DType) {
    double squares = 0;
    double elements = 0;
    for (std::size_t i = 0; i < o.sizes.size(); ++i) {
      for (const double x : v[i]) squares += x * x;
      elements += static_cast<double>(v[i].size());
    }
    const double value = std::sqrt(squares);
    return std::vector<Expected>{{norm, {value}, {value}, elements}};
  };
  c.types = {DType::f32};
  return c;
}

}  // namespace

std::vector<OpCase> global_norm_cases() {
  // More tensors than blocks of a grid, and than a warp looks at in two steps of its search.
  constexpr std::int64_t kMany = 1100;
  std::vector<std::int64_t> many;
  for (std::int64_t i = 0; i < kMany; ++i) many.push_back(1 + i % 5);
  std::vector<OpCase> cases;
  for (const NormOptions& o :
       {NormOptions{"one", {1}}, NormOptions{"three", {1000, 3, 64}}, NormOptions{"long", {70000}},
        NormOptions{"unaligned", {5001}, 1}, NormOptions{"many", many}}) {
    cases.push_back(make(o));
  }
  return cases;
}

namespace {

struct TensorOptions {
  std::int64_t elements;
  bool eight_bit;
  std::int64_t lead = 0;  // elements between an aligned address and value, gradient and moments
  bool resting = false;   // gradient and moments are zero
};

struct Options {
  std::string name;
  std::vector<TensorOptions> tensors;
  std::int64_t step;
  double weight_decay;
  double grad_scale;
};

struct Indices {
  int p, g, m, v, m_absmax = -1, v_absmax = -1;
};

template <class T>
std::vector<T> narrowed(const std::vector<double>& values) {
  std::vector<T> v;
  for (const double x : values) v.push_back(static_cast<T>(x));
  return v;
}

template <class T>
Expected exactly(int operand, const std::vector<T>& values) {
  Expected e;
  e.operand = operand;
  e.value.assign(values.begin(), values.end());
  e.exact = true;
  return e;
}

quant::AdamWFactors factors(const Options& o) {
  quant::AdamWStep s;
  s.lr = 2e-4;
  s.weight_decay = o.weight_decay;
  s.step = o.step;
  s.gradient_scale = o.grad_scale;
  return quant::adamw_factors(s);
}

void append_updated(const Options& o, const TensorOptions& tensor, const Indices& i,
                    const Values& values, std::vector<Expected>& all) {
  std::vector<float> p = narrowed<float>(values[at(i.p)]);
  const std::vector<float> g = narrowed<float>(values[at(i.g)]);
  if (!tensor.eight_bit) {
    std::vector<float> m = narrowed<float>(values[at(i.m)]);
    std::vector<float> v = narrowed<float>(values[at(i.v)]);
    quant::adamw_elements_32bit(factors(o), p.size(), g.data(), p.data(), m.data(), v.data());
    all.insert(all.end(), {exactly(i.p, p), exactly(i.m, m), exactly(i.v, v)});
    return;
  }
  auto m = narrowed<std::uint8_t>(values[at(i.m)]);
  auto v = narrowed<std::uint8_t>(values[at(i.v)]);
  auto m_absmax = narrowed<float>(values[at(i.m_absmax)]);
  auto v_absmax = narrowed<float>(values[at(i.v_absmax)]);
  for (std::size_t b = 0; b < m_absmax.size(); ++b) {
    const std::size_t begin = b * 256;
    quant::adamw_block_8bit(factors(o), quant::adamw_tables(),
                            std::min<std::size_t>(256, p.size() - begin), &g[begin], &p[begin],
                            &m[begin], &v[begin], m_absmax[b], v_absmax[b]);
  }
  all.insert(all.end(), {exactly(i.p, p), exactly(i.m, m), exactly(i.v, v),
                         exactly(i.m_absmax, m_absmax), exactly(i.v_absmax, v_absmax)});
}

// The operands of tensor `number`.
Indices add_operands(OpCase& c, const TensorOptions& o, std::size_t number) {
  const Shape shape{1, o.elements};
  const Shape blocks{(o.elements + 255) / 256};
  const auto name = [&](const char* operand) { return fmt::format("{}{}", operand, number); };
  Indices i{};
  i.p = c.both(name("value"), shape, fixed(DType::f32));
  i.g = c.input(name("grad"), shape, fixed(DType::f32));
  i.m = c.both(name("m"), shape, fixed(o.eight_bit ? DType::u8 : DType::f32));
  i.v = c.both(name("v"), shape, fixed(o.eight_bit ? DType::u8 : DType::f32));
  for (const int operand : {i.p, i.g, i.m, i.v}) c.stride(operand, o.lead, 0);
  c[i.v].values = random_values(c.name + c[i.v].name, o.elements, 0, 1);
  if (o.eight_bit) {
    i.m_absmax = c.both(name("m_absmax"), blocks, fixed(DType::f32));
    i.v_absmax = c.both(name("v_absmax"), blocks, fixed(DType::f32));
    for (const int state : {i.m_absmax, i.v_absmax}) {
      c[state].values = random_values(c.name + c[state].name, blocks.elements(), 0.1, 1);
      if (o.resting) c[state].values.assign(at(blocks.elements()), 0);
    }
    for (const int state : {i.m, i.v}) {
      c[state].values = random_values(c.name + c[state].name, o.elements, 0, 256);
      for (double& code : c[state].values) code = std::floor(code);
    }
  }
  if (o.resting) {
    for (const int operand : {i.g, i.m, i.v}) c[operand].values.assign(at(o.elements), 0);
  }
  return i;
}

OpCase make(const Options& o) {
  OpCase c("adamw_" + o.name);
  std::vector<Indices> all;
  for (std::size_t n = 0; n < o.tensors.size(); ++n) {
    all.push_back(add_operands(c, o.tensors[n], n));
  }
  c.run = [=](ops::Backend& b, const Tensors& t) {
    std::vector<ops::AdamWTensor> tensors;
    for (const Indices& i : all) {
      ops::AdamWTensor w;
      w.value = t[at(i.p)];
      w.grad = t[at(i.g)];
      w.m = t[at(i.m)];
      w.v = t[at(i.v)];
      if (i.m_absmax >= 0) {
        w.m_absmax = t[at(i.m_absmax)];
        w.v_absmax = t[at(i.v_absmax)];
      }
      tensors.push_back(w);
    }
    b.adamw({.tensors = tensors,
             .learning_rate = 2e-4,
             .weight_decay = o.weight_decay,
             .grad_scale = o.grad_scale,
             .step = o.step});
  };
  c.oracle = [=](const Values& v, DType) {
    std::vector<Expected> expected;
    for (std::size_t n = 0; n < all.size(); ++n) {
      append_updated(o, o.tensors[n], all[n], v, expected);
    }
    return expected;
  };
  c.types = {DType::f32};
  return c;
}

}  // namespace

std::vector<OpCase> adamw_cases() {
  std::vector<OpCase> cases;
  for (const bool eight_bit : {false, true}) {
    const char* states = eight_bit ? "8bit" : "32bit";
    cases.push_back(make({fmt::format("1_{}", states), {{1, eight_bit}}, 1, 0, 1}));
    cases.push_back(make({fmt::format("256_{}", states), {{256, eight_bit}}, 2, 0.01, 1}));
    cases.push_back(make({fmt::format("1000_{}", states), {{1000, eight_bit}}, 7, 0.01, 0.37}));
    cases.push_back(make({fmt::format("unaligned_{}", states), {{513, eight_bit, 1}}, 3, 0.01, 1}));
    cases.push_back(
        make({fmt::format("resting_{}", states), {{300, eight_bit, 0, true}}, 3, 0.01, 1}));
  }
  // Of one call: more than a warp looks at in one step of its search.
  std::vector<TensorOptions> many;
  for (std::int64_t i = 0; i < 40; ++i) many.push_back({1 + 61 * i % 700, i % 3 != 0});
  cases.push_back(make({"many", many, 4, 0.01, 1}));
  return cases;
}

}  // namespace medvqa::testing
