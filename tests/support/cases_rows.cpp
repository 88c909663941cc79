// Moving bytes, rows, and positions.
#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "tests/support/cases.h"
#include "tests/support/random_values.h"

namespace medvqa::testing {

std::vector<OpCase> copy_cases() {
  std::vector<OpCase> cases;
  const std::vector<Shape> shapes{{1, 1}, {7, 13}, {3, 2, 5}, {65, 40}, {11}};
  for (const Shape& shape : shapes) {
    for (const bool strided : {false, true}) {
      if (strided && shape.rank() == 1) continue;
      OpCase c(fmt::format("copy_{}{}", shape.str(), strided ? "_strided" : ""));
      const int x = c.input("src", shape);
      const int y = c.output("dst", shape);
      if (strided) c.stride(x, 1, 2);
      if (strided) c.stride(y, 3, 0);
      c.run = [=](ops::Backend& b, const Tensors& t) { b.copy(t[at(x)], t[at(y)]); };
      c.oracle = [=](const Values& v, DType) {
        return std::vector<Expected>{{.operand = y, .value = v[at(x)], .exact = true}};
      };
      cases.push_back(std::move(c));
    }
  }
  return cases;
}

std::vector<OpCase> convert_cases() {
  constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
  constexpr double kInf = std::numeric_limits<double>::infinity();
  // Ties of bf16 and f16, their largest values, subnormals.
  const std::vector<double> special{0,           -0.0,    1,         1 + 0x1p-8, 1 + 0x3p-8,
                                    1 + 0x1p-11, 65504,   65519.9,   65520,      -65536,
                                    0x1p-24,     0x1p-25, 0x1.8p-25, 0x1.8p-24,  0x1p-14,
                                    kNaN,        kInf,    -kInf,     3.3e38,     1e-40};
  std::vector<OpCase> cases;
  for (const DType to : {DType::f64, DType::f32, DType::bf16, DType::f16}) {
    for (const std::int64_t n : {std::int64_t{1}, std::int64_t{20}, std::int64_t{4099}}) {
      OpCase c(fmt::format("convert_to_{}_{}", name_of(to), n));
      std::vector<double> values = random_values(c.name, n, -100, 100);
      for (std::size_t i = 0; n > 1 && i < special.size(); ++i) values[i] = special[i];
      const int x = c.input("src", {n}, values);
      const int y = c.output("dst", {n}, fixed(to));
      c.run = [=](ops::Backend& b, const Tensors& t) { b.convert(t[at(x)], t[at(y)]); };
      c.oracle = [=](const Values& v, DType) {
        return std::vector<Expected>{{.operand = y, .value = v[at(x)], .exact = true}};
      };
      if (to == DType::f64) c.types = {DType::f64, DType::f32};
      cases.push_back(std::move(c));
    }
  }
  return cases;
}

std::vector<OpCase> fill_cases() {
  std::vector<OpCase> cases;
  for (const double value : {0.0, 1.0 / 3, -2.0}) {
    OpCase c(fmt::format("fill_{}", value));
    const int y = c.output("dst", {5, 9});
    c.run = [=](ops::Backend& b, const Tensors& t) { b.fill(t[at(y)], value); };
    c.oracle = [=](const Values&, DType) {
      return std::vector<Expected>{
          {.operand = y, .value = std::vector<double>(45, value), .exact = true}};
    };
    cases.push_back(std::move(c));
  }
  for (const DType type : {DType::u8, DType::i32}) {
    OpCase c(fmt::format("fill_zero_{}", name_of(type)));
    const int y = c.output("dst", {301}, fixed(type));
    c.run = [=](ops::Backend& b, const Tensors& t) { b.fill(t[at(y)], 0); };
    c.oracle = [=](const Values&, DType) {
      return std::vector<Expected>{
          {.operand = y, .value = std::vector<double>(301, 0), .exact = true}};
    };
    c.types = {DType::f32};
    cases.push_back(std::move(c));
  }
  return cases;
}

std::vector<OpCase> accumulate_cases() {
  std::vector<OpCase> cases;
  for (const bool accumulate : {false, true}) {
    for (const bool strided : {false, true}) {
      OpCase c(
          fmt::format("accumulate{}{}", accumulate ? "_add" : "_set", strided ? "_strided" : ""));
      const int x = c.input("src", {9, 21});
      const int y = c.gradient("dst", {9, 21}, accumulate);
      if (strided) c.stride(x, 4, 1);
      if (strided) c.stride(y, 2, 2);
      c.run = [=](ops::Backend& b, const Tensors& t) {
        b.accumulate(t[at(x)], {t[at(y)], accumulate});
      };
      c.oracle = [=](const Values& v, DType) {
        Expected e{y, {}, {}};
        e.exact = !accumulate;
        for (std::size_t i = 0; i < v[at(x)].size(); ++i) {
          const double old = accumulate ? v[at(y)][i] : 0.0;
          e.value.push_back(old + v[at(x)][i]);
          e.magnitude.push_back(std::fabs(old) + std::fabs(v[at(x)][i]));
        }
        return std::vector<Expected>{e};
      };
      cases.push_back(std::move(c));
    }
  }
  return cases;
}

std::vector<OpCase> gather_rows_cases() {
  std::vector<OpCase> cases;
  const std::vector<std::vector<double>> choices{{0}, {4, 4, 0, 2, 6}, {6, 5, 4, 3, 2, 1, 0}};
  for (const bool strided : {false, true}) {
    for (const auto& rows : choices) {
      OpCase c(fmt::format("gather_rows_{}{}", rows.size(), strided ? "_strided" : ""));
      const auto n = static_cast<std::int64_t>(rows.size());
      const int table = c.input("table", {7, 19});
      const int index = c.input("rows", {n}, rows, fixed(DType::i32));
      const int y = c.output("y", {n, 19});
      if (strided) c.stride(table, 1, 1);
      if (strided) c.stride(y, 0, 5);
      c.run = [=](ops::Backend& b, const Tensors& t) {
        b.gather_rows(t[at(table)], t[at(index)], t[at(y)]);
      };
      c.oracle = [=](const Values& v, DType) {
        Expected e{.operand = y, .value = {}, .magnitude = {}, .exact = true};
        for (const double r : rows) {
          for (std::int64_t i = 0; i < 19; ++i) {
            e.value.push_back(v[at(table)][at(static_cast<std::int64_t>(r) * 19 + i)]);
          }
        }
        return std::vector<Expected>{e};
      };
      cases.push_back(std::move(c));
    }
  }
  return cases;
}

std::vector<OpCase> scatter_rows_cases() {
  std::vector<OpCase> cases;
  for (const bool strided : {false, true}) {
    for (const std::vector<double>& rows : {std::vector<double>{3}, {6, 0, 2}}) {
      OpCase c(fmt::format("scatter_rows_{}{}", rows.size(), strided ? "_strided" : ""));
      const auto n = static_cast<std::int64_t>(rows.size());
      const int x = c.input("x", {n, 19});
      const int index = c.input("rows", {n}, rows, fixed(DType::i32));
      const int y = c.both("y", {7, 19});
      if (strided) c.stride(x, 2, 1);
      if (strided) c.stride(y, 1, 3);
      c.run = [=](ops::Backend& b, const Tensors& t) {
        b.scatter_rows(t[at(x)], t[at(index)], t[at(y)]);
      };
      c.oracle = [=](const Values& v, DType) {
        Expected e{.operand = y, .value = v[at(y)], .magnitude = {}, .exact = true};
        for (std::size_t r = 0; r < rows.size(); ++r) {
          for (std::size_t i = 0; i < 19; ++i) {
            e.value[static_cast<std::size_t>(rows[r]) * 19 + i] = v[at(x)][r * 19 + i];
          }
        }
        return std::vector<Expected>{e};
      };
      cases.push_back(std::move(c));
    }
  }
  return cases;
}

std::vector<OpCase> scale_rows_cases() {
  std::vector<OpCase> cases;
  for (const bool accumulate : {false, true}) {
    for (const bool by_row : {false, true}) {
      for (const bool strided : {false, true}) {
        OpCase c(fmt::format("scale_rows{}{}{}", accumulate ? "_add" : "_set",
                             by_row ? "_by_row" : "", strided ? "_strided" : ""));
        const int x = c.input("x", {9, 21});
        const int scale = c.input("scale", {9}, kAccumulator);
        const int y = c.gradient("y", {9, 21}, accumulate);
        if (strided) c.stride(x, 4, 1);
        if (strided) c.stride(y, 2, 2);
        c.run = [=](ops::Backend& b, const Tensors& t) {
          b.scale_rows(t[at(x)], -0.75, by_row ? t[at(scale)] : Tensor{}, {t[at(y)], accumulate});
        };
        c.oracle = [=](const Values& v, DType) {
          Expected e{y, {}, {}};
          for (std::size_t i = 0; i < v[at(x)].size(); ++i) {
            const double old = accumulate ? v[at(y)][i] : 0.0;
            const double term = -0.75 * (by_row ? v[at(scale)][i / 21] : 1.0) * v[at(x)][i];
            e.value.push_back(old + term);
            e.magnitude.push_back(std::fabs(old) + std::fabs(term));
          }
          return std::vector<Expected>{e};
        };
        cases.push_back(std::move(c));
      }
    }
  }
  return cases;
}

std::vector<OpCase> rotary_table_cases() {
  std::vector<OpCase> cases;
  for (const std::int64_t axes : {1, 2, 3}) {
    OpCase c(fmt::format("rotary_table_{}", axes));
    const std::int64_t tokens = 37, pairs = 10;
    std::vector<double> positions, axis, inv_freq;
    for (std::int64_t i = 0; i < axes * tokens; ++i) {
      positions.push_back(static_cast<double>(i % 3 == 0 ? i * 211 % 32768 : i));
    }
    for (std::int64_t f = 0; f < pairs; ++f) {
      axis.push_back(static_cast<double>(f * axes / pairs));
      inv_freq.push_back(std::pow(1e6, -static_cast<double>(f) / static_cast<double>(pairs)));
    }
    const int p = c.input("positions", {axes, tokens}, positions, fixed(DType::i32));
    const int w = c.input("inv_freq", {pairs}, inv_freq, fixed(DType::f32));
    const int a = c.input("axis", {pairs}, axis, fixed(DType::i32));
    const int cosine = c.output("cos", {tokens, pairs}, fixed(DType::f32));
    const int sine = c.output("sin", {tokens, pairs}, fixed(DType::f32));
    c.run = [=](ops::Backend& b, const Tensors& t) {
      b.rotary_table({.positions_AT = t[at(p)],
                      .inv_freq_F = t[at(w)],
                      .axis_F = t[at(a)],
                      .cos_TF = t[at(cosine)],
                      .sin_TF = t[at(sine)]});
    };
    c.oracle = [=](const Values& v, DType) {
      Expected ec{cosine, {}, {}}, es{sine, {}, {}};
      for (std::int64_t t = 0; t < tokens; ++t) {
        for (std::int64_t f = 0; f < pairs; ++f) {
          const std::int64_t row = f * axes / pairs;
          const double angle = v[at(p)][at(row * tokens + t)] * v[at(w)][at(f)];
          // The angle is an f32 product: part of the contract, as in the reference.
          const double in_f32 = rounded(angle, DType::f32);
          ec.value.push_back(std::cos(in_f32));
          es.value.push_back(std::sin(in_f32));
          ec.magnitude.push_back(1);
          es.magnitude.push_back(1);
        }
      }
      return std::vector<Expected>{ec, es};
    };
    c.types = {DType::f32};
    cases.push_back(std::move(c));
  }
  return cases;
}

std::vector<OpCase> rotary_cases() {
  struct Options {
    std::int64_t tokens, heads, size;
    bool packed, inverse;
    std::int64_t unit = 1;  // packed: what the columns of somebody else are multiples of
  };
  std::vector<OpCase> cases;
  for (const bool inverse : {false, true}) {
    for (const Options& o : {Options{1, 1, 2, false, inverse}, Options{5, 3, 20, true, inverse},
                             Options{9, 2, 80, false, inverse}, Options{66, 4, 16, true, inverse},
                             Options{66, 4, 16, true, inverse, 8}}) {
      OpCase c(fmt::format("rotary_{}x{}x{}{}{}", o.tokens, o.heads, o.size,
                           o.unit == 1 ? "" : "_aligned", inverse ? "_inverse" : ""));
      const std::int64_t half = o.size / 2;
      // Columns after the rotated heads belong to the values and must stay.
      const std::int64_t columns = o.heads * o.size + (o.packed ? 7 * o.unit : 0);
      const int x = c.both("x", {o.tokens, columns});
      const int cosine = c.input("cos", {o.tokens, half}, fixed(DType::f32));
      const int sine = c.input("sin", {o.tokens, half}, fixed(DType::f32));
      if (o.packed) c.stride(x, 3 * o.unit, 2 * o.unit);
      c.run = [=](ops::Backend& b, const Tensors& t) {
        b.rotary({.x_TC = t[at(x)],
                  .heads = o.heads,
                  .head_size = o.size,
                  .cos_TF = t[at(cosine)],
                  .sin_TF = t[at(sine)],
                  .inverse = o.inverse});
      };
      c.oracle = [=](const Values& v, DType) {
        Expected e{x, v[at(x)], std::vector<double>(v[at(x)].size())};
        for (std::int64_t t = 0; t < o.tokens; ++t) {
          for (std::int64_t f = 0; f < o.heads * half; ++f) {
            const std::size_t lower = at(t * columns + f / half * o.size + f % half);
            const std::size_t upper = lower + at(half);
            const double co = v[at(cosine)][at(t * half + f % half)];
            const double si = (o.inverse ? -1 : 1) * v[at(sine)][at(t * half + f % half)];
            const double u = v[at(x)][lower], w = v[at(x)][upper];
            e.value[lower] = u * co - w * si;
            e.value[upper] = w * co + u * si;
            e.magnitude[lower] = e.magnitude[upper] =
                (std::fabs(u) + std::fabs(w)) * (std::fabs(co) + std::fabs(si));
          }
        }
        return std::vector<Expected>{e};
      };
      cases.push_back(std::move(c));
    }
  }
  return cases;
}

}  // namespace medvqa::testing
