#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "tests/support/cases.h"
#include "tests/support/random_values.h"

namespace medvqa::testing {

namespace {

struct Options {
  std::int64_t rows, channels, vocabulary, chunk;
  bool dx = true, logits = true, accumulate = false, dweight = false;
};

struct Indices {
  int x, w, labels, nll, correct, dx = -1, logits = -1, dweight = -1;
};

constexpr double kScale = 0.125;

struct Outputs {
  Expected nll, correct, dx, logits, dweight;
};

// What row r, with logits z and `sum` of their exponentials below `top`, adds to d weight.
void expect_dweight_row(const Options& o, const double* x, const std::vector<double>& z, double top,
                        double sum, double error, std::int64_t label, Expected& dweight) {
  for (std::int64_t n = 0; n < o.vocabulary; ++n) {
    const double p = std::exp(z[at(n)] - top) / sum;
    const double dz = kScale * (p - (n == label ? 1 : 0));
    for (std::int64_t c = 0; c < o.channels; ++c) {
      const std::size_t e = at(n * o.channels + c);
      dweight.value[e] += dz * x[c];
      dweight.rounded_magnitude[e] += std::fabs(dz * x[c]);
      dweight.magnitude[e] += kScale * error * (p + (n == label ? 1 : 0)) * std::fabs(x[c]);
    }
  }
}

// Adds row r to what is expected of every output.
void expect_row(const Options& o, const Indices& i, const Values& v, std::int64_t r, Outputs& out) {
  const double* x = v[at(i.x)].data() + r * o.channels;
  const auto label = static_cast<std::int64_t>(v[at(i.labels)][at(r)]);
  std::vector<double> z(at(o.vocabulary));
  double error = 1;
  for (std::int64_t n = 0; n < o.vocabulary; ++n) {
    double size = 0;
    for (std::int64_t c = 0; c < o.channels; ++c) {
      const double term = x[c] * v[at(i.w)][at(n * o.channels + c)];
      z[at(n)] += term;
      size += std::fabs(term);
    }
    error = std::max(error, 1 + 2 * size);
    out.logits.value.push_back(z[at(n)]);
    out.logits.magnitude.push_back(size);
  }
  const auto top = std::max_element(z.begin(), z.end());
  double sum = 0;
  for (const double value : z) sum += std::exp(value - *top);
  out.nll.value.push_back(std::log(sum) + *top - z[at(label)]);
  out.nll.magnitude.push_back(std::fabs(out.nll.value.back()) + error);
  out.correct.value.push_back(top - z.begin() == label ? 1 : 0);
  for (std::int64_t c = 0; i.dx >= 0 && c < o.channels; ++c) {
    const std::size_t e = at(r * o.channels + c);
    double value = o.accumulate ? v[at(i.dx)][e] : 0.0;
    double size = std::fabs(value), terms = 0;
    for (std::int64_t n = 0; n < o.vocabulary; ++n) {
      const double p = std::exp(z[at(n)] - *top) / sum;
      const double w = v[at(i.w)][at(n * o.channels + c)];
      value += kScale * (p - (n == label ? 1 : 0)) * w;
      terms += std::fabs(kScale * (p - (n == label ? 1 : 0)) * w);
      size += kScale * error * (p + (n == label ? 1 : 0)) * std::fabs(w);
    }
    out.dx.value.push_back(value);
    out.dx.magnitude.push_back(size);
    out.dx.rounded_magnitude.push_back(terms);
  }
  if (i.dweight >= 0) expect_dweight_row(o, x, z, *top, sum, error, label, out.dweight);
}

// Before the first row: what is there already, or nothing.
Expected expected_dweight(const Options& o, const Indices& i, const Values& v, double length) {
  // A chunk's products are rounded, and so is the sum after it.
  const auto chunks = static_cast<double>((o.rows + o.chunk - 1) / o.chunk);
  Expected e{i.dweight, {}, {}, length, 1 + chunks};
  if (i.dweight < 0) return e;
  const std::size_t n = at(o.vocabulary * o.channels);
  e.value = o.accumulate ? v[at(i.dweight)] : std::vector<double>(n);
  for (const double value : e.value) e.magnitude.push_back(std::fabs(value));
  e.rounded_magnitude.resize(n);
  return e;
}

OpCase make(const Options& o) {
  OpCase c(fmt::format("linear_cross_entropy_{}x{}x{}_chunk{}{}{}{}{}", o.rows, o.channels,
                       o.vocabulary, o.chunk, o.dx ? "_dx" : "", o.dweight ? "_dweight" : "",
                       o.logits ? "_logits" : "", o.accumulate ? "_acc" : ""));
  Indices i{};
  i.x = c.input("x", {o.rows, o.channels});
  i.w = c.input("weight", {o.vocabulary, o.channels});
  std::vector<double> labels = random_values(c.name, o.rows, 0, static_cast<double>(o.vocabulary));
  for (double& l : labels) l = std::floor(l);
  labels.front() = 0;
  labels.back() = static_cast<double>(o.vocabulary - 1);
  i.labels = c.input("labels", {o.rows}, labels, fixed(DType::i32));
  i.nll = c.output("nll", {o.rows}, kAccumulator);
  i.correct = c.output("correct", {o.rows}, fixed(DType::i32));
  if (o.dx) i.dx = c.gradient("dx", {o.rows, o.channels}, o.accumulate);
  if (o.dweight) i.dweight = c.gradient("dweight", {o.vocabulary, o.channels}, o.accumulate);
  if (o.logits) i.logits = c.output("logits", {o.rows, o.vocabulary}, kAccumulator);
  c.run = [=](ops::Backend& b, const Tensors& t) {
    b.linear_cross_entropy(
        {.x_RC = t[at(i.x)],
         .weight_VC = t[at(i.w)],
         .labels_R = t[at(i.labels)],
         .loss_scale = kScale,
         .chunk_rows = o.chunk,
         .nll_R = t[at(i.nll)],
         .correct_R = t[at(i.correct)],
         .dx_RC = i.dx < 0 ? ops::GradOut{} : ops::GradOut{t[at(i.dx)], o.accumulate},
         .dweight_VC =
             i.dweight < 0 ? ops::GradOut{} : ops::GradOut{t[at(i.dweight)], o.accumulate},
         .logits_RV = i.logits < 0 ? Tensor{} : t[at(i.logits)]});
  };
  if (o.dx) {
    c.derivatives = {.forward = c.run, .y = i.nll, .factor = kScale, .pairs = {{i.dx, i.x}}};
    if (o.dweight) c.derivatives.pairs.emplace_back(i.dweight, i.w);
  }
  c.oracle = [=](const Values& v, DType) {
    const auto length = static_cast<double>(o.channels + o.vocabulary);
    Outputs out{{i.nll, {}, {}, length},
                {i.correct, {}, {}},
                {i.dx, {}, {}, length, 1},
                {i.logits, {}, {}, static_cast<double>(o.channels)},
                expected_dweight(o, i, v, length + static_cast<double>(o.rows))};
    out.correct.exact = true;
    for (std::int64_t r = 0; r < o.rows; ++r) expect_row(o, i, v, r, out);
    std::vector<Expected> all{out.nll, out.correct, out.dx, out.logits, out.dweight};
    std::erase_if(all, [](const Expected& e) { return e.operand < 0; });
    return all;
  };
  return c;
}

}  // namespace

std::vector<OpCase> linear_cross_entropy_cases() {
  const std::vector<Options> list{{1, 1, 2, 64},
                                  {1, 16, 50, 64, true, false},
                                  {7, 24, 33, 3},
                                  {7, 24, 33, 7, true, false, true},
                                  {8, 24, 33, 4, false, true},
                                  {66, 8, 129, 64, true, true, true},
                                  {1, 16, 2, 64, true, true, false, true},
                                  {7, 24, 5, 3, true, false, false, true},
                                  {66, 8, 3, 64, true, true, true, true},
                                  // More than a block of 1024 threads reads at once.
                                  {3, 8, 1031, 2},
                                  {2, 8, 4104, 64}};
  std::vector<OpCase> cases;
  for (const Options& o : list) cases.push_back(make(o));
  return cases;
}

}  // namespace medvqa::testing
