#include "tests/support/test_device.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>

#include "tests/support/random_values.h"

namespace medvqa::testing {

TestDevice::TestDevice(DType compute, std::size_t arena_bytes)
    : compute_(compute),
      tensors_(arena("tensors", arena_bytes)),
      step_(arena("step", arena_bytes)),
      block_(arena("block", arena_bytes)),
      scratch_(arena("scratch", arena_bytes)),
      host_(arena("host", arena_bytes)) {
  backend_.use_scratch(scratch_);
}

// Filled with NaN, so that a value read before it is written is seen.
Arena TestDevice::arena(const char* name, std::size_t bytes) {
  memory_.push_back(backend_.allocate_memory(bytes));
  std::memset(memory_.back().get(), 0xFF, bytes);
  return Arena(name, memory_.back().get(), bytes);
}

Tensor TestDevice::put(const std::vector<double>& values, Shape shape, DType type) {
  const Tensor t = tensors_.allocate(shape, type);
  set(t, values);
  return t;
}

Tensor TestDevice::random(const std::string& name, Shape shape, double scale) {
  return put(random_values(name, shape.elements(), -scale, scale), shape);
}

Tensor TestDevice::integers(const std::vector<std::int32_t>& values) {
  const Tensor t = tensors_.allocate({static_cast<std::int64_t>(values.size())}, DType::i32);
  backend_.upload(values.data(), t.bytes(), t);
  return t;
}

void TestDevice::set(const Tensor& t, const std::vector<double>& values) {
  dispatch_float(t.dtype, [&]<class T>() {
    std::vector<T> narrow;
    for (const double v : values) narrow.push_back(static_cast<T>(static_cast<Accumulator<T>>(v)));
    backend_.upload(narrow.data(), narrow.size() * sizeof(T), t);
  });
}

std::vector<double> TestDevice::get(const Tensor& t) {
  std::vector<double> values;
  dispatch_float(t.dtype, [&]<class T>() {
    std::vector<T> narrow(static_cast<std::size_t>(t.elements()));
    backend_.download(t, narrow.data(), narrow.size() * sizeof(T));
    for (const T& v : narrow) values.push_back(static_cast<double>(v));
  });
  return values;
}

std::vector<std::string> compare_with_differences(
    const std::string& name, const std::vector<double>& x, const std::vector<double>& gradient,
    double size, const std::function<double(const std::vector<double>&)>& f, std::size_t stride) {
  constexpr double h = 0x1p-9;
  std::vector<std::string> failures;
  std::vector<double> moved = x;
  for (std::size_t i = 0; i < x.size(); i += stride) {
    const auto at = [&](double step) {
      moved[i] = x[i] + step;
      return f(moved);
    };
    const double want = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h);
    moved[i] = x[i];
    const double allowed =
        64 * (roundoff(DType::f64) / h + h * h * h * h) * (size + std::fabs(want) + 1);
    if (std::fabs(gradient[i] - want) <= allowed) continue;
    failures.push_back(fmt::format("{}[{}] is {:.12g}, differences say {:.12g} within {:.3g}", name,
                                   i, gradient[i], want, allowed));
  }
  return failures;
}

}  // namespace medvqa::testing
