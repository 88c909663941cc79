#include <fmt/format.h>

#include <cmath>

#include "medvqa/quant/adamw8bit.h"
#include "tests/support/cases.h"
#include "tests/support/random_values.h"

namespace medvqa::testing {

std::vector<OpCase> global_norm_cases() {
  std::vector<OpCase> cases;
  for (const std::vector<std::int64_t>& sizes :
       std::vector<std::vector<std::int64_t>>{{1}, {1000, 3, 64}, {70000}}) {
    OpCase c(fmt::format("global_norm_{}", fmt::join(sizes, "-")));
    for (const std::int64_t n : sizes) c.input(fmt::format("t{}", n), {n}, fixed(DType::f32));
    const int norm = c.output("norm", {1}, fixed(DType::f32));
    c.run = [=](ops::Backend& b, const Tensors& t) {
      b.global_norm(std::span(t.data(), sizes.size()), t[at(norm)]);
    };
    c.oracle = [=](const Values& v, DType) {
      double squares = 0;
      double elements = 0;
      for (std::size_t i = 0; i < sizes.size(); ++i) {
        for (const double x : v[i]) squares += x * x;
        elements += static_cast<double>(v[i].size());
      }
      const double value = std::sqrt(squares);
      return std::vector<Expected>{{norm, {value}, {value}, elements}};
    };
    c.types = {DType::f32};
    cases.push_back(std::move(c));
  }
  return cases;
}

namespace {

struct Options {
  std::int64_t elements;
  bool eight_bit;
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

std::vector<Expected> updated(const Options& o, const Indices& i, const Values& values) {
  std::vector<float> p = narrowed<float>(values[at(i.p)]);
  const std::vector<float> g = narrowed<float>(values[at(i.g)]);
  if (!o.eight_bit) {
    std::vector<float> m = narrowed<float>(values[at(i.m)]);
    std::vector<float> v = narrowed<float>(values[at(i.v)]);
    quant::adamw_elements_32bit(factors(o), p.size(), g.data(), p.data(), m.data(), v.data());
    return {exactly(i.p, p), exactly(i.m, m), exactly(i.v, v)};
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
  return {exactly(i.p, p), exactly(i.m, m), exactly(i.v, v), exactly(i.m_absmax, m_absmax),
          exactly(i.v_absmax, v_absmax)};
}

OpCase make(const Options& o) {
  OpCase c(fmt::format("adamw_{}{}_step{}_decay{}_scale{}", o.elements, o.eight_bit ? "_8bit" : "",
                       o.step, o.weight_decay, o.grad_scale));
  const Shape shape{o.elements};
  const Shape blocks{(o.elements + 255) / 256};
  Indices i{};
  i.p = c.both("value", shape, fixed(DType::f32));
  i.g = c.input("grad", shape, fixed(DType::f32));
  i.m = c.both("m", shape, fixed(o.eight_bit ? DType::u8 : DType::f32));
  i.v = c.both("v", shape, fixed(o.eight_bit ? DType::u8 : DType::f32));
  c[i.v].values = random_values(c.name, o.elements, 0, 1);
  if (o.eight_bit) {
    i.m_absmax = c.both("m_absmax", blocks, fixed(DType::f32));
    i.v_absmax = c.both("v_absmax", blocks, fixed(DType::f32));
    for (const int state : {i.m_absmax, i.v_absmax}) {
      c[state].values = random_values(c.name, blocks.elements(), 0.1, 1);
    }
    for (const int state : {i.m, i.v}) {
      c[state].values = random_values(c.name + c[state].name, o.elements, 0, 256);
      for (double& code : c[state].values) code = std::floor(code);
    }
  }
  c.run = [=](ops::Backend& b, const Tensors& t) {
    ops::AdamWTensor w;
    w.value = t[at(i.p)];
    w.grad = t[at(i.g)];
    w.m = t[at(i.m)];
    w.v = t[at(i.v)];
    if (o.eight_bit) {
      w.m_absmax = t[at(i.m_absmax)];
      w.v_absmax = t[at(i.v_absmax)];
    }
    b.adamw({.tensors = std::span(&w, 1),
             .learning_rate = 2e-4,
             .weight_decay = o.weight_decay,
             .grad_scale = o.grad_scale,
             .step = o.step});
  };
  c.oracle = [=](const Values& v, DType) { return updated(o, i, v); };
  c.types = {DType::f32};
  return c;
}

}  // namespace

std::vector<OpCase> adamw_cases() {
  std::vector<OpCase> cases;
  for (const bool eight_bit : {false, true}) {
    cases.push_back(make({1, eight_bit, 1, 0, 1}));
    cases.push_back(make({256, eight_bit, 2, 0.01, 1}));
    cases.push_back(make({1000, eight_bit, 7, 0.01, 0.37}));
  }
  return cases;
}

}  // namespace medvqa::testing
