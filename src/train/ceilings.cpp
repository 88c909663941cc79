#include "medvqa/train/ceilings.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "medvqa/core/arena.h"
#include "medvqa/ops/scratch.h"
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

// The element that is read back to wait for the device.
Tensor last_element(ops::Backend& backend, Arena& arena) {
  const Tensor one = arena.allocate({1}, DType::f32);
  backend.fill(one, 0);
  return one;
}

}  // namespace

double measure_copy(ops::Backend& backend) {
  // Larger than any cache.
  const std::size_t wanted = std::size_t{backend.free_memory() ? 1024u : 128u} << 20;
  const std::size_t bytes = std::min(wanted, available_memory(backend) / 16);
  const std::size_t capacity = 2 * bytes + 4096;
  const auto memory = backend.allocate_memory(capacity);
  Arena arena("ceilings", memory.get(), capacity);
  const Tensor one = last_element(backend, arena);
  const auto rows = static_cast<std::int64_t>(bytes / (1024 * sizeof(float)));
  const Tensor from = arena.allocate({rows, 1024}, DType::f32);
  const Tensor to = arena.allocate({rows, 1024}, DType::f32);
  backend.fill(from, 1);
  const double seconds = median_seconds(backend, one, [&] { backend.copy(from, to); });
  return 2 * static_cast<double>(from.bytes()) / seconds;
}

double measure_product(ops::Backend& backend, DType type) {
  // A GPU's products reach their rate at 8192, a CPU's much earlier.
  const std::int64_t side = backend.free_memory() ? 8192 : 1536;
  const std::size_t capacity = 3 * static_cast<std::size_t>(side * side) * size_of(type) + 4096;
  const auto memory = backend.allocate_memory(capacity);
  Arena arena("ceilings", memory.get(), capacity);
  const Tensor one = last_element(backend, arena);
  const ops::Gemm p{.a = arena.allocate({side, side}, type),
                    .b = arena.allocate({side, side}, type),
                    .transpose_b = ops::Transpose::yes,
                    .c = arena.allocate({side, side}, type)};
  const std::size_t workspace = ops::scratch_bytes(p, backend.traits()) + 4096;
  const auto scratch_memory = backend.allocate_memory(workspace);
  Arena scratch("scratch", scratch_memory.get(), workspace);
  backend.use_scratch(scratch);
  backend.fill(p.a, 1);
  backend.fill(p.b, 1.0 / 256);
  return ops::operations(p) / median_seconds(backend, one, [&] { backend.gemm(p); });
}

}  // namespace medvqa::train
