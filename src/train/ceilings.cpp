#include "medvqa/train/ceilings.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "medvqa/core/arena.h"
#include "medvqa/train/available_memory.h"

namespace medvqa::train {

namespace {

using Clock = std::chrono::steady_clock;

// Median seconds of `work`, which is repeated until a run takes so long that a clock's and a
// launch's own time do not show.
template <class F>
double median_seconds(ops::Backend& backend, const Tensor& one, F&& work) {
  constexpr double kLongEnough = 0.05;
  constexpr std::size_t kRuns = 5;
  const auto run = [&](int times) {
    const Clock::time_point begin = Clock::now();
    for (int i = 0; i < times; ++i) work();
    float waited = 0;
    backend.download(one, &waited, sizeof(waited));
    return std::chrono::duration<double>(Clock::now() - begin).count();
  };
  run(1);
  int times = 1;
  while (run(times) < kLongEnough) times *= 2;
  std::vector<double> seconds;
  for (std::size_t i = 0; i < kRuns; ++i) seconds.push_back(run(times) / times);
  std::nth_element(seconds.begin(), seconds.begin() + kRuns / 2, seconds.end());
  return seconds[kRuns / 2];
}

}  // namespace

Ceilings measure_ceilings(ops::Backend& backend, DType type) {
  // Larger than any cache; a GPU's products reach their rate at 8192, a CPU's much earlier.
  const bool own_memory = backend.free_memory().has_value();
  const std::int64_t side = own_memory ? 8192 : 1536;
  const std::size_t most = available_memory(backend) / 8;
  const std::size_t copied = std::min(std::size_t{own_memory ? 1024u : 128u} << 20, most / 2);
  const std::size_t products = 4 * static_cast<std::size_t>(side * side) * sizeof(float);
  const auto memory = backend.allocate_memory(std::max(2 * copied, products) + 4096);
  Arena arena("ceilings", memory.get(), std::max(2 * copied, products) + 4096);
  const std::size_t workspace =
      backend.traits().gemm_workspace + (backend.traits().gemm_in_f16 ? 0 : products) + 4096;
  const auto scratch_memory = backend.allocate_memory(workspace);
  Arena scratch("scratch", scratch_memory.get(), workspace);
  backend.use_scratch(scratch);
  const Tensor one = arena.allocate({1}, DType::f32);
  backend.fill(one, 0);
  Ceilings c;
  {
    Arena::Scope scope(arena);
    const auto rows = static_cast<std::int64_t>(copied / (1024 * sizeof(float)));
    const Tensor from = arena.allocate({rows, 1024}, DType::f32);
    const Tensor to = arena.allocate({rows, 1024}, DType::f32);
    backend.fill(from, 1);
    const double bytes = 2 * static_cast<double>(from.bytes());
    c.copied = bytes / median_seconds(backend, one, [&] { backend.copy(from, to); });
  }
  ops::Gemm p{.a = arena.allocate({side, side}, type),
              .b = arena.allocate({side, side}, type),
              .transpose_b = ops::Transpose::yes,
              .c = arena.allocate({side, side}, type)};
  backend.fill(p.a, 1);
  backend.fill(p.b, 1.0 / 256);
  const double n = static_cast<double>(side);
  c.products = 2 * n * n * n / median_seconds(backend, one, [&] { backend.gemm(p); });
  return c;
}

}  // namespace medvqa::train
