#include <fmt/format.h>

#include <cmath>

#include "medvqa/quant/dynamic_map.h"
#include "medvqa/quant/nf4.h"
#include "tests/support/cases.h"
#include "tests/support/random_values.h"

namespace medvqa::testing {

namespace {

struct Weight {
  std::int64_t out, in, block_size;
  bool nested;
  DType rounded_to;
};

struct Indices {
  int packed, absmax, code, nested_absmax = -1, nested_map = -1, y;
};

constexpr float kOffset = 0.046875f;
// Small, so that a small weight has several nested blocks.
constexpr std::int64_t kNestedBlock = 4;

std::vector<double> widened(std::span<const float> values) {
  return {values.begin(), values.end()};
}

std::vector<double> bytes(const std::string& name, std::int64_t n) {
  std::vector<double> v = random_values(name, n, 0, 256);
  for (double& x : v) x = std::floor(x);
  return v;
}

template <class T>
std::vector<T> narrowed(const std::vector<double>& values) {
  std::vector<T> v;
  for (const double x : values) v.push_back(static_cast<T>(x));
  return v;
}

std::vector<double> dequantized(const Weight& w, const Indices& i, const Values& v) {
  std::vector<float> absmax = narrowed<float>(v[at(i.absmax)]);
  if (w.nested) {
    absmax = quant::dequantize_absmax(narrowed<std::uint8_t>(v[at(i.absmax)]),
                                      narrowed<float>(v[at(i.nested_absmax)]),
                                      narrowed<float>(v[at(i.nested_map)]), kOffset, kNestedBlock);
  }
  std::vector<float> values(at(w.out * w.in));
  quant::dequantize_nf4(narrowed<std::uint8_t>(v[at(i.packed)]), absmax,
                        narrowed<float>(v[at(i.code)]), w.block_size, w.rounded_to, values);
  return widened(values);
}

std::string name_of(const Weight& w) {
  return fmt::format("{}x{}_{}{}_{}", w.out, w.in, w.block_size, w.nested ? "_nested" : "",
                     medvqa::name_of(w.rounded_to));
}

// The stored weight's operands.
Indices add_weight(OpCase& c, const Weight& w) {
  const std::int64_t n = w.out * w.in;
  const std::int64_t blocks = (n + w.block_size - 1) / w.block_size;
  Indices i{};
  i.packed = c.input("packed", {(n + 1) / 2}, bytes(c.name, (n + 1) / 2), fixed(DType::u8));
  i.absmax = w.nested ? c.input("absmax", {blocks}, bytes(c.name + "a", blocks), fixed(DType::u8))
                      : c.input("absmax", {blocks}, random_values(c.name, blocks, 0, 0.2),
                                fixed(DType::f32));
  i.code = c.input("code", {16}, widened(quant::kNf4Code), fixed(DType::f32));
  if (w.nested) {
    const std::int64_t outer = (blocks + kNestedBlock - 1) / kNestedBlock;
    i.nested_absmax =
        c.input("nested_absmax", {outer}, random_values(c.name, outer, 0, 0.1), fixed(DType::f32));
    i.nested_map =
        c.input("nested_map", {256}, widened(quant::signed_dynamic_map()), fixed(DType::f32));
  }
  return i;
}

ops::Nf4Weight weight_of(const Weight& w, const Indices& i, const Tensors& t) {
  ops::Nf4Weight q;
  q.out = w.out;
  q.in = w.in;
  q.block_size = w.block_size;
  q.packed = t[at(i.packed)];
  q.absmax = t[at(i.absmax)];
  q.code = t[at(i.code)];
  if (w.nested) {
    q.nested_absmax = t[at(i.nested_absmax)];
    q.nested_map = t[at(i.nested_map)];
    q.nested_offset = kOffset;
    q.nested_block_size = kNestedBlock;
  }
  q.rounded_to = w.rounded_to;
  return q;
}

OpCase dequantize_case(const Weight& w) {
  OpCase c("dequantize_" + name_of(w));
  Indices i = add_weight(c, w);
  i.y = c.output("y", {w.out, w.in});
  c.run = [=](ops::Backend& b, const Tensors& t) {
    b.dequantize_nf4(weight_of(w, i, t), t[at(i.y)]);
  };
  c.oracle = [=](const Values& v, DType) {
    return std::vector<Expected>{
        {.operand = i.y, .value = dequantized(w, i, v), .magnitude = {}, .exact = true}};
  };
  return c;
}

struct Addends {
  bool bias = false;
  bool residual = false;
  bool in_place = false;  // the residual is y
};

OpCase product_case(std::int64_t rows, const Weight& w, const Addends& a) {
  OpCase c(fmt::format("product_{}_{}{}{}{}", rows, name_of(w), a.bias ? "_bias" : "",
                       a.residual ? "_residual" : "", a.in_place ? "_in_place" : ""));
  Indices i = add_weight(c, w);
  const int x = c.input("x", {rows, w.in});
  i.y = a.in_place ? c.both("y", {rows, w.out}) : c.output("y", {rows, w.out});
  c.stride(i.y, 3, 5);
  const int bias = a.bias ? c.input("bias", {w.out}) : -1;
  const int residual = a.residual ? c.input("residual", {rows, w.out}) : -1;
  c.run = [=](ops::Backend& b, const Tensors& t) {
    ops::Nf4Product p{.x_MI = t[at(x)], .weight = weight_of(w, i, t), .y_MO = t[at(i.y)]};
    if (a.bias) p.bias_O = t[at(bias)];
    if (a.residual) p.residual_MO = t[at(residual)];
    if (a.in_place) p.residual_MO = p.y_MO;
    b.nf4_product(p);
  };
  c.oracle = [=](const Values& v, DType compute) {
    const std::vector<double> weights = dequantized(w, i, v);
    Expected y{.operand = i.y, .length = static_cast<double>(w.in)};
    // The weight in the type of x, where that is another than it was rounded to.
    if (compute != w.rounded_to && size_of(compute) == 2) y.roundings = 1;
    for (std::int64_t m = 0; m < rows; ++m) {
      for (std::int64_t o = 0; o < w.out; ++o) {
        double sum = 0, terms = 0;
        const auto add = [&](double term) {
          sum += term;
          terms += std::fabs(term);
        };
        for (std::int64_t k = 0; k < w.in; ++k) {
          add(v[at(x)][at(m * w.in + k)] * weights[at(o * w.in + k)]);
        }
        if (a.bias) add(v[at(bias)][at(o)]);
        if (a.residual) add(v[at(residual)][at(m * w.out + o)]);
        if (a.in_place) add(v[at(i.y)][at(m * w.out + o)]);
        y.value.push_back(sum);
        y.magnitude.push_back(terms);
      }
    }
    return std::vector<Expected>{y};
  };
  return c;
}

}  // namespace

// Rows for each of the fused kernel's shapes; outputs that leave a part of a block; pieces for some
// of its warps and for more than all of them; and weights it does not take.
std::vector<OpCase> nf4_product_cases() {
  using enum DType;
  std::vector<OpCase> cases;
  cases.push_back(product_case(1, {16, 128, 64, false, bf16}, {}));
  cases.push_back(product_case(1, {40, 1152, 64, true, bf16}, {.bias = true}));
  cases.push_back(product_case(8, {17, 256, 64, true, f16}, {.residual = true}));
  cases.push_back(product_case(9, {24, 384, 128, false, f32}, {.bias = true, .in_place = true}));
  cases.push_back(product_case(31, {16, 256, 32, true, bf16}, {}));
  cases.push_back(product_case(64, {19, 128, 64, true, bf16}, {.bias = true, .residual = true}));
  cases.push_back(product_case(65, {16, 128, 64, true, bf16}, {.residual = true}));
  cases.push_back(product_case(3, {7, 96, 64, true, bf16}, {.bias = true}));
  cases.push_back(product_case(2, {5, 33, 64, false, f16}, {.in_place = true}));
  return cases;
}

std::vector<OpCase> dequantize_nf4_cases() {
  std::vector<OpCase> cases;
  for (const bool nested : {false, true}) {
    for (const DType to : {DType::bf16, DType::f16, DType::f32}) {
      cases.push_back(dequantize_case({4, 64, 64, nested, to}));
      cases.push_back(dequantize_case({7, 33, 64, nested, to}));    // odd, last block short
      cases.push_back(dequantize_case({1, 1, 64, nested, to}));     // half a byte
      cases.push_back(dequantize_case({33, 130, 64, nested, to}));  // blocks across rows
      cases.push_back(dequantize_case({5, 100, 128, nested, to}));
    }
  }
  return cases;
}

std::vector<OpCase> quantize_nf4_cases() {
  std::vector<OpCase> cases;
  for (const std::int64_t n : {1, 63, 64, 65, 129, 1000, 4096}) {
    OpCase c(fmt::format("quantize_{}", n));
    std::vector<double> values = random_values(c.name, n, -0.3, 0.3);
    for (std::size_t i = 64; n > 200 && i < 128; ++i) values[i] = 0;  // a block of zeros
    const int x = c.input("x", {n}, values);
    const int packed = c.output("packed", {(n + 1) / 2}, fixed(DType::u8));
    const int absmax = c.output("absmax", {(n + 63) / 64}, fixed(DType::f32));
    c.run = [=](ops::Backend& b, const Tensors& t) {
      b.quantize_nf4(t[at(x)], t[at(packed)], t[at(absmax)]);
    };
    c.oracle = [=](const Values& v, DType) {
      const quant::Nf4Data d = quant::quantize_nf4(narrowed<float>(v[at(x)]));
      Expected codes{.operand = packed, .value = {}, .magnitude = {}, .exact = true};
      codes.value.assign(d.packed.begin(), d.packed.end());
      return std::vector<Expected>{
          codes, {.operand = absmax, .value = widened(d.absmax), .magnitude = {}, .exact = true}};
    };
    c.types = {DType::f32, DType::bf16, DType::f16};
    cases.push_back(std::move(c));
  }
  return cases;
}

}  // namespace medvqa::testing
