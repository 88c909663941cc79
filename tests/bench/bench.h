// What the benchmarks share: a case's result, and a device with memory of its own and a clock that
// waits for it.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "medvqa/core/arena.h"
#include "medvqa/nn/weights.h"
#include "medvqa/ops/scratch.h"

namespace medvqa::bench {

struct Result {
  std::string name;
  double seconds;
  double amount;        // bytes or operations
  bool bytes;           // else operations
  std::string by = {};  // which way it went, where there are several
  double rate() const { return amount / seconds; }
};

// The 16-bit type the device multiplies.
inline DType narrow_type(const ops::Backend& backend) {
  return ops::has_bf16(backend.traits()) ? DType::bf16 : DType::f16;
}

// Bytes that repeat themselves each 2^20: a device draws less power for constant operands, and
// multiplies them faster than any model's.
inline std::vector<std::byte> random_bytes(std::size_t n) {
  constexpr std::size_t kPeriod = std::size_t{1} << 20;
  std::minstd_rand draw(7);
  std::vector<std::byte> bytes(n);
  for (std::size_t i = 0; i < std::min(n, kPeriod); ++i) bytes[i] = std::byte(draw() >> 8 & 255);
  for (std::size_t i = kPeriod; i < n; ++i) bytes[i] = bytes[i - kPeriod];
  return bytes;
}

class Bench {
 public:
  Bench(ops::Backend& backend, std::size_t bytes)
      : backend_(backend),
        memory_(backend.allocate_memory(bytes)),
        scratch_memory_(backend.allocate_memory(bytes)),
        arena_("bench", memory_.get(), bytes),
        scratch_("scratch", scratch_memory_.get(), bytes),
        one_(arena_.allocate({1}, DType::f32)) {
    backend_.use_scratch(scratch_);
    backend_.fill(one_, 0);
  }

  ops::Backend& backend() { return backend_; }
  Arena& arena() { return arena_; }
  Arena& scratch() { return scratch_; }
  DType type() const { return narrow_type(backend_); }
  Tensor filled(Shape shape, DType type, double value) {
    const Tensor t = arena_.allocate(shape, type);
    backend_.fill(t, value);
    return t;
  }
  // Uniform in [-1, 1).
  void randomise(const Tensor& t) {
    constexpr std::size_t kPeriod = std::size_t{1} << 20;
    const auto n = static_cast<std::size_t>(t.elements());
    std::minstd_rand draw(7);
    std::vector<float> values(std::min(n, kPeriod));
    for (float& v : values) v = static_cast<float>(draw() >> 8 & 0xFFFF) / 0x1p15F - 1;
    const std::size_t size = size_of(t.dtype);
    std::vector<std::byte> period(values.size() * size), all(n * size);
    nn::convert_elements(std::as_bytes(std::span(values)), DType::f32, period, t.dtype);
    for (std::size_t at = 0; at < all.size(); at += period.size()) {
      std::memcpy(&all[at], period.data(), std::min(period.size(), all.size() - at));
    }
    backend_.upload(all.data(), all.size(), t);
  }
  Tensor random(Shape shape, DType type) {
    const Tensor t = arena_.allocate(shape, type);
    randomise(t);
    return t;
  }
  Tensor bytes(std::int64_t n, std::uint8_t value) {
    const Tensor t = arena_.allocate({n}, DType::u8);
    const std::vector<std::uint8_t> host(static_cast<std::size_t>(n), value);
    backend_.upload(host.data(), t.bytes(), t);
    return t;
  }
  Tensor integers(const std::vector<std::int32_t>& values) {
    const Tensor t = arena_.allocate({static_cast<std::int64_t>(values.size())}, DType::i32);
    backend_.upload(values.data(), t.bytes(), t);
    return t;
  }

  // Until everything queued has ended.
  void wait() {
    float waited = 0;
    backend_.download(one_, &waited, sizeof(waited));
  }

  // Median seconds of one call, of five runs of at least 20 ms.
  double seconds(const std::function<void()>& work) {
    work();
    int times = 1;
    while (run(work, times) < 0.02) times *= 2;
    std::vector<double> all;
    for (int i = 0; i < 5; ++i) all.push_back(run(work, times) / times);
    std::nth_element(all.begin(), all.begin() + 2, all.end());
    return all[2];
  }

 private:
  using Clock = std::chrono::steady_clock;

  double run(const std::function<void()>& work, int times) {
    const Clock::time_point begin = Clock::now();
    for (int i = 0; i < times; ++i) work();
    wait();
    return std::chrono::duration<double>(Clock::now() - begin).count();
  }

  ops::Backend& backend_;
  std::shared_ptr<void> memory_, scratch_memory_;
  Arena arena_, scratch_;
  Tensor one_;
};

}  // namespace medvqa::bench
