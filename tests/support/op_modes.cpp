#include "tests/support/op_modes.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "medvqa/ops/dry_backend.h"
#include "tests/support/placement.h"

namespace medvqa::testing {

namespace {

constexpr std::size_t kScratchGuard = 4096;

std::size_t dry_scratch(const OpCase& c, const ops::DeviceTraits& traits, const Tensors& tensors) {
  ops::DryBackend dry(traits);
  Arena scratch("scratch");
  dry.use_scratch(scratch);
  c.run(dry, tensors);
  return scratch.peak();
}

// Runs `f` with exactly the scratch memory given, and looks at what stands behind it.
template <class F>
Failures with_scratch(ops::Backend& backend, std::size_t bytes, const std::string& name, F&& f) {
  const std::shared_ptr<void> memory = backend.allocate_memory(bytes + kScratchGuard);
  std::vector<std::byte> image(bytes + kScratchGuard, std::byte{0xFF});
  const Tensor all(memory.get(), DType::u8, {static_cast<std::int64_t>(image.size())});
  backend.upload(image.data(), image.size(), all);
  Arena scratch("scratch", memory.get(), bytes);
  backend.use_scratch(scratch);
  f();
  Failures failures;
  backend.download(all, image.data(), image.size());
  for (std::size_t i = bytes; i < image.size(); ++i) {
    if (image[i] == std::byte{0xFF}) continue;
    failures.push_back(fmt::format("{}: wrote behind its {} bytes of scratch", name, bytes));
    break;
  }
  if (scratch.peak() != bytes) {
    failures.push_back(fmt::format("{}: scratch peak {}, dry run {}", name, scratch.peak(), bytes));
  }
  return failures;
}

Failures run(const OpCase& c, ops::Backend& backend, const Placement& placement) {
  const std::size_t bytes = dry_scratch(c, backend.traits(), placement.described());
  return with_scratch(backend, bytes, c.name, [&] { c.run(backend, placement.tensors()); });
}

double smallest_subnormal(DType t) {
  switch (t) {
    case DType::f32:
    case DType::bf16:
      return 0x1p-126;  // devices may flush subnormals
    case DType::f16:
      return 0x1p-24;
    default:
      return 0;
  }
}

double tolerance(const Expected& e, std::size_t i, double value, DType type, DType compute) {
  constexpr double kElementary = 16;  // roundings of exp, division, scaling beside the sum
  const DType sums = accumulator_of(compute);
  const double rounded_terms =
      e.rounded_magnitude.empty() ? e.magnitude[i] : e.rounded_magnitude[i];
  const double reduction = std::min(e.length, 6 * std::sqrt(e.length));
  return roundoff(type) * std::fabs(value) +
         (reduction + kElementary) * roundoff(sums) * e.magnitude[i] +
         e.roundings * roundoff(compute) * rounded_terms + smallest_subnormal(type);
}

bool same(double a, double b) {
  return (std::isnan(a) && std::isnan(b)) || a == b;
}

// `wanted` is what the elements are compared with: f64 kernels or the plain computation.
void compare(const OpCase& c, const std::string& where, const Expected& e,
             const std::vector<double>& wanted, const std::vector<double>& got, DType compute,
             Failures& failures) {
  const Operand& o = c[e.operand];
  const DType type = o.type.in(compute);
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double want = e.exact ? rounded(wanted[i], type) : wanted[i];
    const double allowed = e.exact ? 0 : tolerance(e, i, want, type, compute);
    const bool fine = e.exact ? same(got[i], want) : std::fabs(got[i] - want) <= allowed;
    if (fine) continue;
    failures.push_back(fmt::format("{} {}: {}[{}] is {:.9g}, expected {:.9g} within {:.3g}", c.name,
                                   where, o.name, i, got[i], want, allowed));
    return;  // one line an operand
  }
}

bool has_type(const OpCase& c, DType t) {
  return std::find(c.types.begin(), c.types.end(), t) != c.types.end();
}

}  // namespace

Values case_values(const OpCase& c, DType compute) {
  Values values;
  const auto round_all = [&] {
    for (std::size_t i = 0; i < c.operands.size(); ++i) {
      for (double& v : values[i]) v = rounded(v, c.operands[i].type.in(compute));
    }
  };
  for (const Operand& o : c.operands) values.push_back(o.values);
  round_all();
  if (c.derive) c.derive(values);
  round_all();
  return values;
}

Failures check_reference(const OpCase& c, const TestedBackend& tested, DType type) {
  const Values values = case_values(c, type);
  const Placement low(tested, c, type, values);
  Failures failures = run(c, *tested.backend, low);
  const bool f64_exists = has_type(c, DType::f64);
  const Placement high(c, f64_exists ? DType::f64 : type, values);
  if (f64_exists) run(c, cpu_backend(), high);
  const std::string where = tested.name + " " + std::string(name_of(type));
  for (const Expected& e : c.oracle(values, type)) {
    const bool plain = e.exact || !f64_exists;
    compare(c, where, e, plain ? e.value : high.read(e.operand), low.read(e.operand), type,
            failures);
  }
  return failures;
}

Failures check_oracle(const OpCase& c) {
  Failures failures;
  if (!has_type(c, DType::f64)) return failures;
  const Values values = case_values(c, DType::f64);
  const Placement p(c, DType::f64, values);
  failures = run(c, cpu_backend(), p);
  for (const Expected& e : c.oracle(values, DType::f64)) {
    compare(c, "f64 against plain", e, e.value, p.read(e.operand), DType::f64, failures);
  }
  return failures;
}

Failures check_guards(const OpCase& c, const TestedBackend& tested, DType type) {
  const Placement p(tested, c, type, case_values(c, type));
  Failures failures = run(c, *tested.backend, p);
  const Failures damage = p.damage();
  failures.insert(failures.end(), damage.begin(), damage.end());
  return failures;
}

namespace {

struct Loss {
  double value = 0;
  double size = 0;  // sum of |terms|
};

Loss loss_of(const OpCase& c, const Values& values) {
  const Placement p(c, DType::f64, values);
  const std::size_t bytes = [&] {
    OpCase forward = c;
    forward.run = c.derivatives.forward;
    return dry_scratch(forward, cpu_backend().traits(), p.described());
  }();
  with_scratch(cpu_backend(), bytes, c.name,
               [&] { c.derivatives.forward(cpu_backend(), p.tensors()); });
  const std::vector<double> y = p.read(c.derivatives.y);
  Loss loss;
  for (std::size_t i = 0; i < y.size(); ++i) {
    const double weight = c.derivatives.weight < 0 ? 1.0 : values[at(c.derivatives.weight)][i];
    loss.value += c.derivatives.factor * weight * y[i];
    loss.size += std::fabs(c.derivatives.factor * weight * y[i]);
  }
  return loss;
}

// Error h^4 f^(5) / 30, and rounding of the loss over h.
double central_difference(const OpCase& c, Values values, std::size_t operand, std::size_t i,
                          double h) {
  const double x = values[operand][i];
  const auto f = [&](double step) {
    values[operand][i] = x + step;
    return loss_of(c, values).value;
  };
  return (8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h);
}

}  // namespace

Failures check_gradient(const OpCase& c) {
  constexpr double kStep = 0x1p-9;
  constexpr double kStep4 = kStep * kStep * kStep * kStep;
  Failures failures;
  if (!c.derivatives.forward) return failures;
  const Values values = case_values(c, DType::f64);
  const Placement p(c, DType::f64, values);
  failures = run(c, cpu_backend(), p);
  const double size = loss_of(c, values).size;
  for (const auto& pair : c.derivatives.pairs) {
    const std::vector<double> gradient = p.read(pair.first);
    const Operand& o = c[pair.first];
    const std::size_t checked = gradient.size() > 2000 ? 2 : 10;  // spread over the tensor
    const std::size_t step = std::max<std::size_t>(1, gradient.size() / checked);
    for (std::size_t i = 0; i < gradient.size(); i += step) {
      const double before = o.role == Role::both ? values[at(pair.first)][i] : 0.0;
      const double got = gradient[i] - before;
      const double want = central_difference(c, values, at(pair.second), i, kStep);
      const double allowed =
          64 * (roundoff(DType::f64) / kStep + kStep4) * (size + std::fabs(want) + 1);
      if (std::fabs(got - want) <= allowed) continue;
      failures.push_back(fmt::format("{}: {}[{}] is {:.12g}, differences say {:.12g} within {:.3g}",
                                     c.name, o.name, i, got, want, allowed));
      break;
    }
  }
  return failures;
}

}  // namespace medvqa::testing
