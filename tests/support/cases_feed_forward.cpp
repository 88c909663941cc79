#include <fmt/format.h>

#include <array>
#include <cmath>

#include "medvqa/core/philox.h"
#include "tests/support/cases.h"
#include "tests/support/naive.h"
#include "tests/support/random_values.h"

namespace medvqa::testing {

namespace {

using ops::Activation;

constexpr std::array kActivations{Activation::gelu_erf, Activation::gelu_tanh,
                                  Activation::quick_gelu, Activation::silu};

struct Rows {
  std::int64_t rows, columns;
  bool strided;
  std::int64_t unit = 1;  // strided: what the columns of somebody else are multiples of
  std::string str() const {
    return fmt::format("{}x{}{}", rows, columns, strided ? fmt::format("_strided{}", unit) : "");
  }
};
// With a unit of 8 every row of a 16-bit type begins on 16 bytes; one row after a few elements
// of somebody else is contiguous, but begins anywhere.
const std::vector<Rows> kShapes{{1, 1, false},    {1, 37, false},  {6, 24, true}, {66, 17, true},
                                {6, 24, true, 8}, {40, 64, false}, {1, 64, true}};

// Values where the functions bend and where they saturate.
int wide_input(OpCase& c, const char* name, const Rows& s) {
  return c.input(name, {s.rows, s.columns},
                 random_values(c.name + name, s.rows * s.columns, -9, 9));
}

}  // namespace

std::vector<OpCase> activation_cases() {
  std::vector<OpCase> cases;
  for (const Activation kind : kActivations) {
    for (const Rows& s : kShapes) {
      for (const bool in_place : {false, true}) {
        OpCase c(fmt::format("activation{}_{}{}", static_cast<int>(kind), s.str(),
                             in_place ? "_in_place" : ""));
        const int x = wide_input(c, "x", s);
        if (in_place) c[x].role = Role::both;
        const int y = in_place ? x : c.output("y", {s.rows, s.columns});
        if (s.strided) c.stride(x, 2 * s.unit, 3 * s.unit);
        if (s.strided && !in_place) c.stride(y, 0, s.unit);
        c.run = [=](ops::Backend& b, const Tensors& t) { b.activation(kind, t[at(x)], t[at(y)]); };
        c.oracle = [=](const Values& v, DType) {
          Expected e{y, {}, {}};
          for (const double value : v[at(x)]) {
            e.value.push_back(naive::activation(kind, value));
            e.magnitude.push_back(std::fabs(value));
          }
          return std::vector<Expected>{e};
        };
        cases.push_back(std::move(c));
      }
    }
  }
  return cases;
}

std::vector<OpCase> activation_backward_cases() {
  enum class Form : std::uint8_t { overwrite, accumulate, in_place };
  std::vector<OpCase> cases;
  for (const Activation kind : kActivations) {
    for (const Rows& s : kShapes) {
      for (const Form form : {Form::overwrite, Form::accumulate, Form::in_place}) {
        OpCase c(fmt::format("activation_backward{}_{}_{}", static_cast<int>(kind), s.str(),
                             static_cast<int>(form)));
        const int x = wide_input(c, "x", s);
        const bool in_place = form == Form::in_place;
        const bool accumulate = form == Form::accumulate;
        const int dy =
            in_place ? c.both("dy", {s.rows, s.columns}) : c.input("dy", {s.rows, s.columns});
        const int dx = in_place ? dy : c.gradient("dx", {s.rows, s.columns}, accumulate);
        const int y = c.spare("y", {s.rows, s.columns});
        if (s.strided) c.stride(dy, s.unit, 4 * s.unit);
        c.run = [=](ops::Backend& b, const Tensors& t) {
          b.activation_backward(kind, t[at(x)], t[at(dy)], {t[at(dx)], accumulate});
        };
        if (!in_place) {  // there the weights are gone
          c.derivatives = {
              .forward = [=](ops::Backend& b,
                             const Tensors& t) { b.activation(kind, t[at(x)], t[at(y)]); },
              .y = y,
              .weight = dy,
              .pairs = {{dx, x}}};
        }
        c.oracle = [=](const Values& v, DType) {
          Expected e{dx, {}, {}};
          for (std::size_t i = 0; i < v[at(x)].size(); ++i) {
            const double old = accumulate ? v[at(dx)][i] : 0.0;
            const double d = v[at(dy)][i];
            e.value.push_back(old + d * naive::slope(kind, v[at(x)][i]));
            // The argument's error grows with the argument's own powers (gelu_tanh: its cube).
            const double reach = std::fabs(v[at(x)][i]);
            e.magnitude.push_back(std::fabs(old) + std::fabs(d) * (1 + reach));
          }
          return std::vector<Expected>{e};
        };
        cases.push_back(std::move(c));
      }
    }
  }
  return cases;
}

std::vector<OpCase> swiglu_cases() {
  std::vector<OpCase> cases;
  for (const Rows& s : kShapes) {
    OpCase c("swiglu_" + s.str());
    const int gate = wide_input(c, "gate", s);
    const int up = wide_input(c, "up", s);
    const int y = c.output("y", {s.rows, s.columns});
    if (s.strided) {
      c.stride(gate, 0, s.columns);
      c.stride(up, s.columns, 0);
    }
    c.run = [=](ops::Backend& b, const Tensors& t) {
      b.swiglu({.gate_TF = t[at(gate)], .up_TF = t[at(up)], .y_TF = t[at(y)]});
    };
    c.oracle = [=](const Values& v, DType) {
      Expected e{y, {}, {}};
      for (std::size_t i = 0; i < v[at(gate)].size(); ++i) {
        e.value.push_back(naive::activation(Activation::silu, v[at(gate)][i]) * v[at(up)][i]);
        e.magnitude.push_back(std::fabs(v[at(gate)][i] * v[at(up)][i]));
      }
      return std::vector<Expected>{e};
    };
    cases.push_back(std::move(c));
  }
  return cases;
}

namespace {

struct SwiGluIndices {
  int gate, up, dy, dgate, dup;
};

std::vector<Expected> swiglu_gradients(const SwiGluIndices& i, bool accumulate, const Values& v) {
  Expected gate{i.dgate, {}, {}}, up{i.dup, {}, {}};
  for (std::size_t n = 0; n < v[at(i.gate)].size(); ++n) {
    const double g = v[at(i.gate)][n], u = v[at(i.up)][n], d = v[at(i.dy)][n];
    const double old_gate = accumulate && i.dgate >= 0 ? v[at(i.dgate)][n] : 0.0;
    const double old_up = accumulate && i.dup >= 0 ? v[at(i.dup)][n] : 0.0;
    gate.value.push_back(old_gate + d * u * naive::slope(Activation::silu, g));
    gate.magnitude.push_back(std::fabs(old_gate) + std::fabs(d * u) * (1 + std::fabs(g)));
    up.value.push_back(old_up + d * naive::activation(Activation::silu, g));
    up.magnitude.push_back(std::fabs(old_up) + std::fabs(d * g));
  }
  std::vector<Expected> all{gate, up};
  std::erase_if(all, [](const Expected& e) { return e.operand < 0; });
  return all;
}

}  // namespace

std::vector<OpCase> swiglu_backward_cases() {
  std::vector<OpCase> cases;
  for (const Rows& s : kShapes) {
    for (const int wanted : {3, 1, 2}) {  // bit 0: dgate, bit 1: dup
      for (const bool accumulate : {false, true}) {
        OpCase c(fmt::format("swiglu_backward_{}_{}{}", s.str(), wanted, accumulate ? "_acc" : ""));
        const Shape shape{s.rows, s.columns};
        SwiGluIndices i{};
        i.gate = wide_input(c, "gate", s);
        i.up = wide_input(c, "up", s);
        i.dy = c.input("dy", shape);
        i.dgate = (wanted & 1) != 0 ? c.gradient("dgate", shape, accumulate) : -1;
        i.dup = (wanted & 2) != 0 ? c.gradient("dup", shape, accumulate) : -1;
        const int y = c.spare("y", shape);
        if (s.strided && i.dgate >= 0) c.stride(i.dgate, 0, s.columns);
        if (s.strided && i.dup >= 0) c.stride(i.dup, s.columns, 0);
        c.run = [=](ops::Backend& b, const Tensors& t) {
          const auto out = [&](int index) {
            return index < 0 ? ops::GradOut{} : ops::GradOut{t[at(index)], accumulate};
          };
          b.swiglu_backward({.gate_TF = t[at(i.gate)],
                             .up_TF = t[at(i.up)],
                             .dy_TF = t[at(i.dy)],
                             .dgate_TF = out(i.dgate),
                             .dup_TF = out(i.dup)});
        };
        c.derivatives.forward = [=](ops::Backend& b, const Tensors& t) {
          b.swiglu({.gate_TF = t[at(i.gate)], .up_TF = t[at(i.up)], .y_TF = t[at(y)]});
        };
        c.derivatives.y = y;
        c.derivatives.weight = i.dy;
        if (i.dgate >= 0) c.derivatives.pairs.push_back({i.dgate, i.gate});
        if (i.dup >= 0) c.derivatives.pairs.push_back({i.dup, i.up});
        c.oracle = [=](const Values& v, DType) { return swiglu_gradients(i, accumulate, v); };
        cases.push_back(std::move(c));
      }
    }
  }
  return cases;
}

std::vector<OpCase> dropout_cases() {
  std::vector<OpCase> cases;
  for (const double p : {0.0, 0.1, 0.5}) {
    for (const Rows& s : kShapes) {
      for (const bool accumulate : {false, true}) {
        OpCase c(fmt::format("dropout_{}_{}{}", p, s.str(), accumulate ? "_acc" : ""));
        const int x = c.input("x", {s.rows, s.columns});
        const int y = c.gradient("y", {s.rows, s.columns}, accumulate);
        if (s.strided && s.rows == 1) c.stride(x, s.unit, 0);
        constexpr std::uint64_t kSeed = 0x123456789abcdef0u, kStream = 77;
        c.run = [=](ops::Backend& b, const Tensors& t) {
          b.dropout({.x_TC = t[at(x)],
                     .y_TC = {t[at(y)], accumulate},
                     .p = p,
                     .seed = kSeed,
                     .stream = kStream});
        };
        c.oracle = [=](const Values& v, DType) {
          Expected e{y, {}, {}};
          for (std::size_t i = 0; i < v[at(x)].size(); ++i) {
            const double word = philox4x32(kSeed, kStream, i / 4)[i % 4];
            const double kept = word >= std::floor(p * 0x1p32) ? v[at(x)][i] / (1 - p) : 0.0;
            const double old = accumulate ? v[at(y)][i] : 0.0;
            e.value.push_back(old + kept);
            e.magnitude.push_back(std::fabs(old) + std::fabs(kept));
          }
          return std::vector<Expected>{e};
        };
        cases.push_back(std::move(c));
      }
    }
  }
  return cases;
}

}  // namespace medvqa::testing
