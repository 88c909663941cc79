// Times the operations that decide a training step against what the device can do at most: measured
// copies and products. One case a line, as JSON with --json.
//
//   kernels_bench_cuda [--scale S] [--json FILE]
//   kernels_bench [--scale S] [--json FILE]            on the CPU
//
// scale divides the sizes: 16 makes the same cases fit for a CPU.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <fstream>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>
#include <vector>

#include "medvqa/core/arena.h"
#include "medvqa/ops/scratch.h"
#include "medvqa/quant/nf4.h"
#include "tests/support/backends.h"

namespace medvqa::bench {

namespace {

using Clock = std::chrono::steady_clock;

struct Result {
  std::string name;
  double seconds;
  double amount;  // bytes or operations
  bool bytes;     // else operations
  double rate() const { return amount / seconds; }
};

// The 16-bit type the device multiplies.
DType narrow_type(const ops::Backend& backend) {
  return ops::has_bf16(backend.traits()) ? DType::bf16 : DType::f16;
}

// Memory of its own and a clock that waits for the device.
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
  DType type() const { return narrow_type(backend_); }
  Tensor filled(Shape shape, DType type, double value) {
    const Tensor t = arena_.allocate(shape, type);
    backend_.fill(t, value);
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
  double run(const std::function<void()>& work, int times) {
    const Clock::time_point begin = Clock::now();
    for (int i = 0; i < times; ++i) work();
    float waited = 0;
    backend_.download(one_, &waited, sizeof(waited));
    return std::chrono::duration<double>(Clock::now() - begin).count();
  }

  ops::Backend& backend_;
  std::shared_ptr<void> memory_, scratch_memory_;
  Arena arena_, scratch_;
  Tensor one_;
};

Result copy(Bench& b, std::int64_t scale) {
  const Arena::Scope scope(b.arena());
  const Tensor from = b.filled({(std::int64_t{1} << 18) / scale, 1024}, b.type(), 1);
  const Tensor to = b.arena().allocate_like(from);
  const double s = b.seconds([&] { b.backend().copy(from, to); });
  return {"copy", s, 2 * static_cast<double>(from.bytes()), true};
}

Result product(Bench& b, const std::string& name, std::int64_t m, std::int64_t n, std::int64_t k) {
  const Arena::Scope scope(b.arena());
  const ops::Gemm p{.a = b.filled({m, k}, b.type(), 1),
                    .b = b.filled({n, k}, b.type(), 1.0 / 256),
                    .transpose_b = ops::Transpose::yes,
                    .c = b.arena().allocate({m, n}, b.type())};
  const double s = b.seconds([&] { b.backend().gemm(p); });
  return {name, s, 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k),
          false};
}

Result dequantize(Bench& b, std::int64_t out, std::int64_t in) {
  const Arena::Scope scope(b.arena());
  const std::int64_t blocks = out * in / quant::kNf4BlockSize;
  ops::Nf4Weight w;
  w.out = out;
  w.in = in;
  w.packed = b.bytes(out * in / 2, 0x5A);
  w.absmax = b.bytes(blocks, 100);
  w.code = b.filled({16}, DType::f32, 0.5);
  w.nested_absmax = b.filled({(blocks + 255) / 256}, DType::f32, 1);
  w.nested_map = b.filled({256}, DType::f32, 0.25);
  const Tensor y = b.arena().allocate({out, in}, b.type());
  const double s = b.seconds([&] { b.backend().dequantize_nf4(w, y); });
  const double moved = static_cast<double>(w.packed.bytes() + w.absmax.bytes() +
                                           w.nested_absmax.bytes() + y.bytes());
  return {"nf4 dequantise", s, moved, true};
}

struct AttentionShape {
  std::string name;
  std::int64_t rows, heads, kv_heads, size;
  bool causal;
};

// Operations of two products forward and of five backward; a causal mask leaves half.
std::vector<Result> attention(Bench& b, const AttentionShape& a) {
  const Arena::Scope scope(b.arena());
  const Shape wide{a.rows, a.heads, a.size}, narrow{a.rows, a.kv_heads, a.size};
  const Tensor ends = b.integers({0, static_cast<std::int32_t>(a.rows)});
  const ops::Attention p{.q_THD = b.filled(wide, b.type(), 0.5),
                         .k_SGD = b.filled(narrow, b.type(), 0.5),
                         .v_SGD = b.filled(narrow, b.type(), 1),
                         .y_THD = b.filled(wide, b.type(), 0),
                         .lse_HT = b.filled({a.heads, a.rows}, DType::f32, 0),
                         .cu_q_N = ends,
                         .cu_k_N = ends,
                         .max_q = a.rows,
                         .max_k = a.rows,
                         .causal = a.causal,
                         .scale = 0.1};
  const double product = 2.0 * static_cast<double>(a.rows) * static_cast<double>(a.rows) *
                         static_cast<double>(a.heads * a.size) / (a.causal ? 2 : 1);
  std::vector<Result> results;
  results.push_back({a.name, b.seconds([&] { b.backend().attention(p); }), 2 * product, false});
  const ops::AttentionBackward back{.forward = p,
                                    .dy_THD = b.filled(wide, b.type(), 1),
                                    .dq_THD = {b.arena().allocate(wide, b.type())},
                                    .dk_SGD = {b.arena().allocate(narrow, b.type())},
                                    .dv_SGD = {b.arena().allocate(narrow, b.type())}};
  const double s = b.seconds([&] { b.backend().attention_backward(back); });
  results.push_back({a.name + " backward", s, 5 * product, false});
  return results;
}

Result adamw(Bench& b, std::int64_t n) {
  const Arena::Scope scope(b.arena());
  const Shape whole{n}, blocks{(n + 255) / 256};
  const ops::AdamWTensor t{.value = b.filled(whole, DType::f32, 1),
                           .grad = b.filled(whole, DType::f32, 0.01),
                           .m = b.bytes(n, 0),
                           .v = b.bytes(n, 0),
                           .m_absmax = b.filled(blocks, DType::f32, 0),
                           .v_absmax = b.filled(blocks, DType::f32, 0)};
  const ops::AdamW p{.tensors = std::span(&t, 1), .learning_rate = 1e-4};
  const double s = b.seconds([&] { b.backend().adamw(p); });
  const double moved = 2 * static_cast<double>(t.value.bytes() + t.m.bytes() + t.v.bytes() +
                                               t.m_absmax.bytes() + t.v_absmax.bytes()) +
                       static_cast<double>(t.grad.bytes());
  return {"adamw, 8-bit", s, moved, true};
}

// The ceilings first: a copy, and the product of a size that GPUs reach their rate at.
std::vector<Result> measure(ops::Backend& backend, std::int64_t scale) {
  const std::size_t bytes =
      (std::size_t{5} << 29) / static_cast<std::size_t>(scale) + (std::size_t{256} << 20);
  Bench b(backend, bytes);
  std::vector<Result> all{copy(b, scale),
                          product(b, "product", 8192 / scale, 8192 / scale, 8192 / scale)};
  all.push_back(dequantize(b, 14336 / scale, 4096));
  // Token rows of a step against the linears of Qwen2-VL-7B, Llama-3.2-11B and a vision tower.
  const std::int64_t tokens = 4096 / scale;
  all.push_back(product(b, "linear 3584 x 3584", tokens, 3584, 3584));
  all.push_back(product(b, "linear 18944 x 3584", tokens, 18944 / scale, 3584));
  all.push_back(product(b, "linear 14336 x 4096", tokens, 14336 / scale, 4096));
  all.push_back(product(b, "linear 5120 x 1280", tokens, 5120, 1280));
  for (const AttentionShape& a :
       {AttentionShape{"attention D 80 S 6432", 6432 / scale, 16, 16, 80, false},
        AttentionShape{"attention D 128 S 2048 causal", 2048 / scale, 32, 8, 128, true}}) {
    for (Result& r : attention(b, a)) all.push_back(std::move(r));
  }
  all.push_back(adamw(b, (std::int64_t{1} << 26) / scale));
  return all;
}

void report(const std::vector<Result>& all, const testing::TestedBackend& tested,
            std::int64_t scale, const std::string& file) {
  const std::string_view type = name_of(narrow_type(*tested.backend));
  fmt::print("{} in {}\n", tested.name, type);
  nlohmann::ordered_json cases = nlohmann::ordered_json::array();
  for (const Result& r : all) {
    const Result& most = r.bytes ? all[0] : all[1];
    const double part = r.rate() / most.rate();
    fmt::print("{:<40} {:>10.3f} ms {:>10.1f} {:<7} {:>4.0f} %\n", r.name, 1e3 * r.seconds,
               r.rate() / 1e9, r.bytes ? "GB/s" : "GFLOP/s", 100 * part);
    cases.push_back({{"name", r.name},
                     {"seconds", r.seconds},
                     {"rate", r.rate()},
                     {"unit", r.bytes ? "B/s" : "FLOP/s"},
                     {"of_ceiling", part}});
  }
  if (file.empty()) return;
  std::ofstream out(file);
  out << nlohmann::ordered_json{{"device", tested.name},
                                {"type", type},
                                {"scale", scale},
                                {"cases", cases}}
             .dump(2)
      << "\n";
  if (!out) throw UserError(ExitCode::io, "cannot write " + file);
}

int run(int argc, char** argv) {
  CLI::App parser("Times kernels against measured copies and products.");
  std::string file;
  std::int64_t scale = 1;
  parser.add_option("--scale", scale)->check(CLI::IsMember({1, 2, 4, 8, 16, 32}));
  parser.add_option("--json", file);
  CLI11_PARSE(parser, argc, argv);
  if (testing::available_backends().empty()) {
    throw UserError(ExitCode::device, "this machine has no such device");
  }
  const testing::TestedBackend& tested = testing::available_backends().front();
  report(measure(*tested.backend, scale), tested, scale, file);
  return 0;
}

}  // namespace

}  // namespace medvqa::bench

int main(int argc, char** argv) {
  try {
    return medvqa::bench::run(argc, argv);
  } catch (const medvqa::UserError& error) {
    std::cerr << "kernels_bench: " << error.what() << "\n";
    return static_cast<int>(error.code());
  } catch (const std::exception& error) {
    std::cerr << "kernels_bench: " << error.what() << "\n";
    return 1;
  }
}
