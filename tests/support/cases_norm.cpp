#include <fmt/format.h>

#include <cmath>
#include <numeric>

#include "tests/support/cases.h"
#include "tests/support/random_values.h"

namespace medvqa::testing {

namespace {

constexpr double kEps = 1e-5;

struct Rows {
  std::int64_t rows, channels;
  double offset = 0;      // a mean far from zero, for layer_norm
  std::int64_t lead = 0;  // elements between an aligned address and x
  bool wide_x = false;    // x in the accumulator type: a residual stream
  std::string name(const char* operation) const {
    return fmt::format("{}_{}x{}{}{}", operation, rows, channels, lead == 0 ? "" : "_unaligned",
                       wide_x ? "_wide" : "");
  }
  ElementType x_type() const { return wide_x ? kAccumulator : kCompute; }
};
// The wide ones are more than a warp, and then a block, has in its registers at once, both in
// vectors and element by element.
const std::vector<Rows> kShapes{{1, 3},
                                {1, 8},
                                {5, 33},
                                {3, 257, 3},
                                {64, 80},
                                {2, 1040},
                                {2, 1031},
                                {3, 2056},
                                {1, 8200},
                                {1, 80, 0, 1},
                                {5, 33, 0, 0, true},
                                {3, 80, 3, 0, true},
                                {2, 1032, 0, 0, true},
                                {1, 4104, 0, 0, true},
                                {1, 80, 0, 1, true}};

// x of one row and its statistics.
struct RowView {
  const double* x;
  double mean = 0, inv_std = 0, inv_rms = 0, mean_size = 0;
  RowView(const std::vector<double>& values, std::int64_t row, std::int64_t channels)
      : x(values.data() + row * channels) {
    double squares = 0, deviations = 0;
    const auto n = static_cast<double>(channels);
    for (std::int64_t c = 0; c < channels; ++c) {
      mean += x[c] / n;
      mean_size += std::fabs(x[c]) / n;
      squares += x[c] * x[c] / n;
    }
    for (std::int64_t c = 0; c < channels; ++c) deviations += std::pow(x[c] - mean, 2) / n;
    inv_rms = 1 / std::sqrt(squares + kEps);
    inv_std = 1 / std::sqrt(deviations + kEps);
  }
};

int x_input(OpCase& c, const Rows& s) {
  // In f32 these are the others again.
  if (s.wide_x) c.types = {DType::f64, DType::bf16, DType::f16};
  const std::int64_t n = s.rows * s.channels;
  const int x = c.input("x", {s.rows, s.channels},
                        random_values(c.name, n, s.offset - 1, s.offset + 1), s.x_type());
  c.stride(x, s.lead, 0);
  return x;
}

}  // namespace

std::vector<OpCase> rms_norm_cases() {
  std::vector<OpCase> cases;
  for (const Rows& s : kShapes) {
    OpCase c(s.name("rms_norm"));
    const int x = x_input(c, s);
    const int w = c.input("weight", {s.channels});
    const int y = c.output("y", {s.rows, s.channels});
    const int inv = c.output("inv_rms", {s.rows}, kAccumulator);
    c.run = [=](ops::Backend& b, const Tensors& t) {
      b.rms_norm({.x_TC = t[at(x)],
                  .weight_C = t[at(w)],
                  .eps = kEps,
                  .y_TC = t[at(y)],
                  .inv_rms_T = t[at(inv)]});
    };
    c.oracle = [=](const Values& v, DType) {
      Expected ey{y, {}, {}, static_cast<double>(s.channels), 1};
      Expected ei{inv, {}, {}, static_cast<double>(s.channels)};
      for (std::int64_t r = 0; r < s.rows; ++r) {
        const RowView row(v[at(x)], r, s.channels);
        ei.value.push_back(row.inv_rms);
        for (std::int64_t i = 0; i < s.channels; ++i) {
          ey.value.push_back(row.x[i] * row.inv_rms * v[at(w)][at(i)]);
          ey.magnitude.push_back(std::fabs(ey.value.back()));
        }
      }
      ei.magnitude = ei.value;
      return std::vector<Expected>{ey, ei};
    };
    cases.push_back(std::move(c));
  }
  return cases;
}

namespace {

struct RmsNormBackwardIndices {
  int x, w, inv, dy, dx;
};

Expected rms_norm_gradient(const Rows& s, const RmsNormBackwardIndices& o, const Values& v,
                           bool accumulate) {
  Expected e{o.dx, {}, {}, static_cast<double>(s.channels)};
  const auto n = static_cast<double>(s.channels);
  for (std::int64_t r = 0; r < s.rows; ++r) {
    const double* xr = v[at(o.x)].data() + r * s.channels;
    const double* d = v[at(o.dy)].data() + r * s.channels;
    const double i = v[at(o.inv)][at(r)];
    double dot = 0, dot_size = 0;
    for (std::int64_t k = 0; k < s.channels; ++k) {
      dot += v[at(o.w)][at(k)] * d[k] * xr[k] / n;
      dot_size += std::fabs(v[at(o.w)][at(k)] * d[k] * xr[k]) / n;
    }
    for (std::int64_t k = 0; k < s.channels; ++k) {
      const double old = accumulate ? v[at(o.dx)][at(r * s.channels + k)] : 0.0;
      const double g = v[at(o.w)][at(k)] * d[k];
      e.value.push_back(old + i * (g - xr[k] * i * i * dot));
      e.magnitude.push_back(std::fabs(old) +
                            i * (std::fabs(g) + std::fabs(xr[k]) * i * i * dot_size));
    }
  }
  return e;
}

}  // namespace

std::vector<OpCase> rms_norm_backward_cases() {
  std::vector<OpCase> cases;
  for (const Rows& s : kShapes) {
    for (const bool accumulate : {false, true}) {
      OpCase c(s.name("rms_norm_backward") + (accumulate ? "_acc" : ""));
      const int x = x_input(c, s);
      const int w = c.input("weight", {s.channels});
      const int inv = c.input("inv_rms", {s.rows}, kAccumulator);
      const int dy = c.input("dy", {s.rows, s.channels});
      const int dx = c.gradient("dx", {s.rows, s.channels}, accumulate, s.x_type());
      const int y = c.spare("y", {s.rows, s.channels});
      const int kept = c.spare("kept", {s.rows}, kAccumulator);
      c.derive = [=](Values& v) {
        for (std::int64_t r = 0; r < s.rows; ++r) {
          v[at(inv)][at(r)] = RowView(v[at(x)], r, s.channels).inv_rms;
        }
      };
      c.run = [=](ops::Backend& b, const Tensors& t) {
        b.rms_norm_backward({.x_TC = t[at(x)],
                             .weight_C = t[at(w)],
                             .inv_rms_T = t[at(inv)],
                             .dy_TC = t[at(dy)],
                             .dx_TC = {t[at(dx)], accumulate}});
      };
      c.derivatives = {.forward =
                           [=](ops::Backend& b, const Tensors& t) {
                             b.rms_norm({.x_TC = t[at(x)],
                                         .weight_C = t[at(w)],
                                         .eps = kEps,
                                         .y_TC = t[at(y)],
                                         .inv_rms_T = t[at(kept)]});
                           },
                       .y = y,
                       .weight = dy,
                       .pairs = {{dx, x}}};
      const RmsNormBackwardIndices indices{x, w, inv, dy, dx};
      c.oracle = [=](const Values& v, DType) {
        return std::vector<Expected>{rms_norm_gradient(s, indices, v, accumulate)};
      };
      cases.push_back(std::move(c));
    }
  }
  return cases;
}

std::vector<OpCase> layer_norm_cases() {
  std::vector<OpCase> cases;
  for (const Rows& s : kShapes) {
    OpCase c(s.name("layer_norm"));
    const int x = x_input(c, s);
    const int w = c.input("weight", {s.channels});
    const int bias = c.input("bias", {s.channels});
    const int y = c.output("y", {s.rows, s.channels});
    const int mean = c.output("mean", {s.rows}, kAccumulator);
    const int inv = c.output("inv_std", {s.rows}, kAccumulator);
    c.run = [=](ops::Backend& b, const Tensors& t) {
      b.layer_norm({.x_TC = t[at(x)],
                    .weight_C = t[at(w)],
                    .bias_C = t[at(bias)],
                    .eps = kEps,
                    .y_TC = t[at(y)],
                    .mean_T = t[at(mean)],
                    .inv_std_T = t[at(inv)]});
    };
    c.oracle = [=](const Values& v, DType) {
      Expected ey{y, {}, {}, static_cast<double>(s.channels)};
      Expected em{mean, {}, {}, ey.length};
      Expected ei{inv, {}, {}, ey.length};
      for (std::int64_t r = 0; r < s.rows; ++r) {
        const RowView row(v[at(x)], r, s.channels);
        em.value.push_back(row.mean);
        em.magnitude.push_back(row.mean_size);
        ei.value.push_back(row.inv_std);
        ei.magnitude.push_back(row.inv_std * (1 + row.mean_size * row.inv_std));
        for (std::int64_t i = 0; i < s.channels; ++i) {
          const double scale = row.inv_std * v[at(w)][at(i)];
          ey.value.push_back((row.x[i] - row.mean) * scale + v[at(bias)][at(i)]);
          ey.magnitude.push_back((std::fabs(row.x[i]) + row.mean_size) * std::fabs(scale) +
                                 std::fabs(v[at(bias)][at(i)]));
        }
      }
      return std::vector<Expected>{ey, em, ei};
    };
    cases.push_back(std::move(c));
  }
  return cases;
}

namespace {

struct LayerNormBackwardIndices {
  int x, w, mean, inv, dy, dx;
};

Expected layer_norm_gradient(const Rows& s, const LayerNormBackwardIndices& i, const Values& v,
                             bool accumulate) {
  Expected e{i.dx, {}, {}, static_cast<double>(s.channels)};
  const auto n = static_cast<double>(s.channels);
  for (std::int64_t r = 0; r < s.rows; ++r) {
    const double mean = v[at(i.mean)][at(r)];
    const double inv = v[at(i.inv)][at(r)];
    double sum = 0, dot = 0, sum_size = 0, dot_size = 0;
    const auto g = [&](std::int64_t c) {
      return v[at(i.w)][at(c)] * v[at(i.dy)][at(r * s.channels + c)];
    };
    const auto x = [&](std::int64_t c) { return v[at(i.x)][at(r * s.channels + c)]; };
    const auto size = [&](std::int64_t c) { return (std::fabs(x(c)) + std::fabs(mean)) * inv; };
    for (std::int64_t c = 0; c < s.channels; ++c) {
      sum += g(c) / n;
      dot += g(c) * (x(c) - mean) * inv / n;
      sum_size += std::fabs(g(c)) / n;
      dot_size += std::fabs(g(c)) * size(c) / n;
    }
    for (std::int64_t c = 0; c < s.channels; ++c) {
      const double old = accumulate ? v[at(i.dx)][at(r * s.channels + c)] : 0.0;
      e.value.push_back(old + inv * (g(c) - sum - (x(c) - mean) * inv * dot));
      e.magnitude.push_back(std::fabs(old) +
                            inv * (std::fabs(g(c)) + sum_size + size(c) * dot_size));
    }
  }
  return e;
}

}  // namespace

std::vector<OpCase> layer_norm_backward_cases() {
  std::vector<OpCase> cases;
  for (const Rows& s : kShapes) {
    for (const bool accumulate : {false, true}) {
      OpCase c(s.name("layer_norm_backward") + (accumulate ? "_acc" : ""));
      LayerNormBackwardIndices i{};
      i.x = x_input(c, s);
      i.w = c.input("weight", {s.channels});
      i.mean = c.input("mean", {s.rows}, kAccumulator);
      i.inv = c.input("inv_std", {s.rows}, kAccumulator);
      i.dy = c.input("dy", {s.rows, s.channels});
      i.dx = c.gradient("dx", {s.rows, s.channels}, accumulate, s.x_type());
      const int bias = c.input("bias", {s.channels});
      const int y = c.spare("y", {s.rows, s.channels});
      const int m = c.spare("m", {s.rows}, kAccumulator);
      const int d = c.spare("d", {s.rows}, kAccumulator);
      c.derive = [=](Values& v) {
        for (std::int64_t r = 0; r < s.rows; ++r) {
          const RowView row(v[at(i.x)], r, s.channels);
          v[at(i.mean)][at(r)] = row.mean;
          v[at(i.inv)][at(r)] = row.inv_std;
        }
      };
      c.run = [=](ops::Backend& b, const Tensors& t) {
        b.layer_norm_backward({.x_TC = t[at(i.x)],
                               .weight_C = t[at(i.w)],
                               .mean_T = t[at(i.mean)],
                               .inv_std_T = t[at(i.inv)],
                               .dy_TC = t[at(i.dy)],
                               .dx_TC = {t[at(i.dx)], accumulate}});
      };
      c.derivatives = {.forward =
                           [=](ops::Backend& b, const Tensors& t) {
                             b.layer_norm({.x_TC = t[at(i.x)],
                                           .weight_C = t[at(i.w)],
                                           .bias_C = t[at(bias)],
                                           .eps = kEps,
                                           .y_TC = t[at(y)],
                                           .mean_T = t[at(m)],
                                           .inv_std_T = t[at(d)]});
                           },
                       .y = y,
                       .weight = i.dy,
                       .pairs = {{i.dx, i.x}}};
      c.oracle = [=](const Values& v, DType) {
        return std::vector<Expected>{layer_norm_gradient(s, i, v, accumulate)};
      };
      cases.push_back(std::move(c));
    }
  }
  return cases;
}

}  // namespace medvqa::testing
