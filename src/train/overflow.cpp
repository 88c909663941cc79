#include "medvqa/train/overflow.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace medvqa::train {

namespace {

bool finite(ops::Backend& backend, const Tensor& t) {
  std::vector<std::byte> bytes(t.bytes());
  backend.download(t, bytes.data(), bytes.size());
  bool all = true;
  dispatch_float(t.dtype, [&]<class T>() {
    const auto* values = reinterpret_cast<const T*>(bytes.data());
    all = std::all_of(values, values + t.elements(),
                      [](T v) { return std::isfinite(static_cast<Accumulator<T>>(v)); });
  });
  return all;
}

std::string first_gradient(ops::Backend& backend, Arenas& arenas, const AdaptedModel& model) {
  Arena::Scope scope(arenas.step());
  const Tensor norm = arenas.step().allocate({1}, DType::f32);
  for (std::size_t i = model.gradients().size(); i-- > 0;) {
    backend.global_norm(model.gradients().subspan(i, 1), norm);
    if (!finite(backend, norm)) return model.trained_names()[i];
  }
  return "";
}

}  // namespace

std::string Overflow::text() const {
  const std::string backward =
      gradient.empty() ? "none by itself" : fmt::format("the first is {}", gradient);
  return fmt::format("gradients that are not finite: {}; {}", backward,
                     forward.empty() ? "all of the forward is finite"
                                     : fmt::format("in the forward, first {}", forward));
}

Overflow find_overflow(ops::Backend& backend, Arenas& arenas, const AdaptedModel& model,
                       std::span<const MicroBatch> batches, const PassOptions& options) {
  Overflow found;
  found.gradient = first_gradient(backend, arenas, model);
  for (std::size_t i = 0; i < batches.size() && found.forward.empty(); ++i) {
    PassOptions pass = options;
    pass.random_key = micro_batch_key(options.random_key, i);
    pass.observe = [&](const std::string& segment, const Tensor& value) {
      if (found.forward.empty() && !finite(backend, value)) found.forward = segment;
    };
    const double nll = run_pass(backend, arenas, model, batches[i], pass).nll_sum();
    if (found.forward.empty() && !std::isfinite(nll)) found.forward = "the loss";
  }
  return found;
}

}  // namespace medvqa::train
