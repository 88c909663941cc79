#include <fmt/format.h>

#include <cmath>

#include "tests/support/cases.h"
#include "tests/support/naive.h"

namespace medvqa::testing {

namespace {

using ops::Activation;
using ops::Transpose;

struct Options {
  std::int64_t m, n, k;
  bool ta = false, tb = false;
  double alpha = 1;
  bool accumulate = false, bias = false;
  enum class Residual : std::uint8_t {
    none,
    apart,
    in_c,
    in_preactivation
  } residual = Residual::none;
  Activation activation = Activation::none;
  bool preactivation = false;
  bool strided = false;
  bool wide_c = false;  // c in the accumulator type
};

std::string name_of(const Options& o) {
  using enum Options::Residual;
  return fmt::format(
      "gemm_{}x{}x{}{}{}{}{}{}{}{}{}{}{}", o.m, o.n, o.k, o.ta ? "_ta" : "", o.tb ? "_tb" : "",
      o.alpha == 1 ? "" : fmt::format("_alpha{}", o.alpha), o.accumulate ? "_acc" : "",
      o.bias ? "_bias" : "",
      o.residual == none    ? ""
      : o.residual == apart ? "_residual"
      : o.residual == in_c  ? "_residual_in_c"
                            : "_residual_in_pre",
      o.activation == Activation::none ? "" : fmt::format("_act{}", int(o.activation)),
      o.preactivation ? "_pre" : "", o.strided ? "_strided" : "", o.wide_c ? "_wide" : "");
}

struct Indices {
  int a, b, c, bias = -1, residual = -1, pre = -1;
};

std::vector<Expected> expect(const Options& o, const Indices& i, const Values& v) {
  const auto size = at(o.m * o.n);
  Expected c{i.c, std::vector<double>(size), std::vector<double>(size)};
  Expected pre{i.pre, c.value, c.magnitude};
  c.length = pre.length = static_cast<double>(o.k);
  if (o.activation != Activation::none) c.roundings = 1;  // z may be rounded before
  const bool reads_c = o.accumulate || o.residual == Options::Residual::in_c;
  for (std::int64_t m = 0; m < o.m; ++m) {
    for (std::int64_t n = 0; n < o.n; ++n) {
      double z = 0, terms = 0;
      for (std::int64_t k = 0; k < o.k; ++k) {
        const double t = v[at(i.a)][at(o.ta ? k * o.m + m : m * o.k + k)] *
                         v[at(i.b)][at(o.tb ? n * o.k + k : k * o.n + n)];
        z += t;
        terms += std::fabs(t);
      }
      z *= o.alpha;
      terms *= std::fabs(o.alpha);
      const std::size_t e = at(m * o.n + n);
      const auto add = [&](double x) {
        z += x;
        terms += std::fabs(x);
      };
      if (o.bias) add(v[at(i.bias)][at(n)]);
      if (o.residual == Options::Residual::apart) add(v[at(i.residual)][e]);
      if (o.residual == Options::Residual::in_preactivation) add(v[at(i.pre)][e]);
      if (reads_c) add(v[at(i.c)][e]);
      pre.value[e] = z;
      pre.magnitude[e] = terms;
      c.value[e] = naive::activation(o.activation, z);
      c.magnitude[e] = 1.2 * terms;  // no activation here is steeper
    }
  }
  if (!o.preactivation) return {c};
  return {c, pre};
}

OpCase make(const Options& o) {
  OpCase c(name_of(o));
  Indices i;
  const ElementType c_type = o.wide_c ? kAccumulator : kCompute;
  i.a = c.input("a", o.ta ? Shape{o.k, o.m} : Shape{o.m, o.k});
  i.b = c.input("b", o.tb ? Shape{o.n, o.k} : Shape{o.k, o.n});
  const bool reads_c = o.accumulate || o.residual == Options::Residual::in_c;
  i.c = reads_c ? c.both("c", {o.m, o.n}, c_type) : c.output("c", {o.m, o.n}, c_type);
  if (o.bias) i.bias = c.input("bias", {o.n}, c_type);
  if (o.residual == Options::Residual::apart) i.residual = c.input("residual", {o.m, o.n}, c_type);
  if (o.residual == Options::Residual::in_preactivation) {
    i.pre = c.both("preactivation", {o.m, o.n}, c_type);
  } else if (o.preactivation) {
    i.pre = c.output("preactivation", {o.m, o.n}, c_type);
  }
  if (o.strided) {
    c.stride(i.a, 3, 5);
    c.stride(i.b, 0, 7);
    c.stride(i.c, 16, 1);
    if (i.residual >= 0) c.stride(i.residual, 2, 0);
  }
  c.run = [o, i](ops::Backend& backend, const Tensors& t) {
    const auto optional = [&t](int index) { return index < 0 ? Tensor{} : t[at(index)]; };
    ops::Gemm p{.a = t[at(i.a)],
                .transpose_a = o.ta ? Transpose::yes : Transpose::no,
                .b = t[at(i.b)],
                .transpose_b = o.tb ? Transpose::yes : Transpose::no,
                .c = t[at(i.c)],
                .alpha = o.alpha,
                .accumulate = o.accumulate,
                .bias_N = optional(i.bias),
                .residual_MN = optional(i.residual),
                .activation = o.activation,
                .preactivation_MN = optional(i.pre)};
    if (o.residual == Options::Residual::in_c) p.residual_MN = p.c;
    if (o.residual == Options::Residual::in_preactivation) p.residual_MN = p.preactivation_MN;
    backend.gemm(p);
  };
  c.oracle = [o, i](const Values& v, DType) { return expect(o, i, v); };
  return c;
}

void append_activations(std::vector<Options>& list) {
  using enum Options::Residual;
  for (const auto activation :
       {Activation::gelu_erf, Activation::gelu_tanh, Activation::quick_gelu, Activation::silu}) {
    list.push_back({.m = 5,
                    .n = 19,
                    .k = 8,
                    .tb = true,
                    .bias = true,
                    .activation = activation,
                    .preactivation = true});
    list.push_back({.m = 5,
                    .n = 19,
                    .k = 8,
                    .bias = true,
                    .residual = apart,
                    .activation = activation,
                    .strided = true});
  }
  list.push_back({.m = 7,
                  .n = 11,
                  .k = 16,
                  .accumulate = true,
                  .activation = Activation::silu,
                  .preactivation = true});
  list.push_back({.m = 7,
                  .n = 11,
                  .k = 16,
                  .alpha = 2,
                  .residual = in_preactivation,
                  .activation = Activation::quick_gelu,
                  .preactivation = true});
}

}  // namespace

std::vector<OpCase> gemm_cases() {
  using enum Options::Residual;
  std::vector<Options> list{{.m = 1, .n = 1, .k = 1},
                            {.m = 1, .n = 33, .k = 17},
                            {.m = 65, .n = 7, .k = 129},
                            {.m = 3, .n = 64, .k = 300}};
  for (const bool ta : {false, true}) {
    for (const bool tb : {false, true}) {
      list.push_back({.m = 9, .n = 13, .k = 31, .ta = ta, .tb = tb});
      list.push_back({.m = 9, .n = 13, .k = 31, .ta = ta, .tb = tb, .strided = true});
      list.push_back({.m = 16,
                      .n = 5,
                      .k = 66,
                      .ta = ta,
                      .tb = tb,
                      .alpha = 0.25,
                      .accumulate = true,
                      .strided = true,
                      .wide_c = true});
    }
  }
  append_activations(list);
  list.push_back({.m = 7, .n = 11, .k = 16, .alpha = 0.5});
  list.push_back({.m = 7, .n = 11, .k = 16, .alpha = -2, .accumulate = true});
  list.push_back({.m = 7, .n = 11, .k = 16, .bias = true});
  list.push_back({.m = 7, .n = 11, .k = 16, .alpha = 0.5, .bias = true});
  list.push_back({.m = 7, .n = 11, .k = 16, .alpha = 3, .accumulate = true, .bias = true});
  list.push_back({.m = 7, .n = 11, .k = 16, .tb = true, .residual = apart});
  list.push_back({.m = 7, .n = 11, .k = 16, .tb = true, .bias = true, .residual = apart});
  list.push_back({.m = 7, .n = 11, .k = 16, .tb = true, .residual = in_c, .strided = true});
  list.push_back({.m = 7, .n = 11, .k = 16, .alpha = 2, .bias = true, .residual = in_c});
  list.push_back({.m = 7, .n = 11, .k = 16, .bias = true, .wide_c = true});
  list.push_back({.m = 6, .n = 12, .k = 40, .residual = apart, .wide_c = true});
  std::vector<OpCase> cases;
  for (const Options& o : list) cases.push_back(make(o));
  return cases;
}

}  // namespace medvqa::testing
