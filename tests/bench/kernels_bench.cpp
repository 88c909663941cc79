// Times the operations that decide a training step against what the device can do at most: measured
// copies and products. One case a line, as JSON with --json.
//
//   kernels_bench_cuda [--scale S] [--json FILE]
//   kernels_bench [--scale S] [--json FILE]            on the CPU
//
// scale divides the sizes: 16 makes the same cases fit for a CPU.
//
// "linear N x K" is the product alone, "linear layer N x K" all that nn::Linear does. Where a
// library does attention's forward the row names it, and our kernels' follows at the end.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "medvqa/ops/scratch.h"
#include "tests/bench/bench.h"
#include "tests/bench/linear_cases.h"
#include "tests/support/backends.h"

namespace medvqa::bench {

namespace {

// More than any device's cache holds.
constexpr std::int64_t kColdBytes = std::int64_t{256} << 20;

Result copy(Bench& b, std::int64_t scale) {
  const Arena::Scope scope(b.arena());
  const Tensor from = b.filled({(std::int64_t{1} << 18) / scale, 1024}, b.type(), 1);
  const Tensor to = b.arena().allocate_like(from);
  const double s = b.seconds([&] { b.backend().copy(from, to); });
  return {"copy", s, 2 * static_cast<double>(from.bytes()), true};
}

Result product(Bench& b, const std::string& name, std::int64_t m, std::int64_t n, std::int64_t k) {
  const Arena::Scope scope(b.arena());
  const ops::Gemm p{.a = b.random({m, k}, b.type()),
                    .b = b.random({n, k}, b.type()),
                    .transpose_b = ops::Transpose::yes,
                    .c = b.arena().allocate({m, n}, b.type())};
  const double s = b.seconds([&] { b.backend().gemm(p); });
  return {name, s, 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k),
          false};
}

constexpr const char* kOwnKernels = "own kernels";

struct AttentionShape {
  std::string name;
  std::int64_t rows, heads, kv_heads, size;
  bool causal;
};

// The library that does this attention, or our kernels; empty where there is no choice.
std::string done_by(Bench& b, const testing::TestedBackend& tested, const ops::Attention& p) {
  if (!tested.library_attention) return {};
  const Arena::Scope scope(b.scratch());
  const std::size_t bytes = ops::scratch_bytes(p, b.backend().traits());
  const Tensor scratch = b.scratch().allocate({static_cast<std::int64_t>(bytes)}, DType::u8);
  b.wait();
  const std::string library = tested.library_attention(p, scratch);
  return library.empty() ? kOwnKernels : library;
}

// Operations of two products forward and of five backward; a causal mask leaves half.
std::vector<Result> attention(Bench& b, const testing::TestedBackend& tested,
                              const AttentionShape& a) {
  const Arena::Scope scope(b.arena());
  const Shape wide{a.rows, a.heads, a.size}, narrow{a.rows, a.kv_heads, a.size};
  const Tensor ends = b.integers({0, static_cast<std::int32_t>(a.rows)});
  const ops::Attention p{.q_THD = b.random(wide, b.type()),
                         .k_SGD = b.random(narrow, b.type()),
                         .v_SGD = b.random(narrow, b.type()),
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
  results.push_back({a.name, b.seconds([&] { b.backend().attention(p); }), 2 * product, false,
                     done_by(b, tested, p)});
  const ops::AttentionBackward back{.forward = p,
                                    .dy_THD = b.random(wide, b.type()),
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

std::vector<AttentionShape> attention_shapes(std::int64_t scale) {
  return {{"attention D 80 S 6432", 6432 / scale, 16, 16, 80, false},
          {"attention D 128 S 2048 causal", 2048 / scale, 32, 8, 128, true}};
}

// The forward again by our kernels, which another backend of the same device keeps to.
void add_own_attention(std::vector<Result>& all, std::size_t bytes, std::int64_t scale) {
  setenv("MEDVQA_LIBRARY_ATTENTION", "0", 1);
  const std::vector<testing::TestedBackend> own = testing::make_backends();
  unsetenv("MEDVQA_LIBRARY_ATTENTION");
  Bench b(*own.front().backend, bytes);
  for (const AttentionShape& a : attention_shapes(scale)) {
    Result forward = attention(b, {}, a).front();
    forward.name += ", " + std::string(kOwnKernels);
    forward.by = kOwnKernels;
    all.push_back(std::move(forward));
  }
}

// Token rows of a step against the linears of Qwen2-VL-7B, Llama-3.2-11B and a vision tower, and
// rows of an answer being generated.
void add_linears(Bench& b, std::int64_t scale, std::vector<Result>& all) {
  const std::int64_t tokens = 4096 / scale;
  all.push_back(product(b, "linear 3584 x 3584", tokens, 3584, 3584));
  all.push_back(product(b, "linear 18944 x 3584", tokens, 18944 / scale, 3584));
  all.push_back(product(b, "linear 14336 x 4096", tokens, 14336 / scale, 4096));
  all.push_back(product(b, "linear 5120 x 1280", tokens, 5120, 1280));
  const auto add_layer = [&](std::int64_t out, std::int64_t in) {
    for (Result& r : linear_layer(b, tokens, out, in)) all.push_back(std::move(r));
  };
  add_layer(3584, 3584);
  add_layer(18944 / scale, 3584);
  add_layer(14336 / scale, 4096);
  add_layer(5120, 1280);
  for (const std::int64_t rows : {1, 16, 64}) {
    all.push_back(few_rows(b, rows, 4096 / scale, 14336, kColdBytes / scale));
    all.push_back(few_rows(b, rows, 3584 / scale, 18944, kColdBytes / scale));
  }
}

// The ceilings first: a copy, and the product of a size that GPUs reach their rate at.
std::vector<Result> measure(const testing::TestedBackend& tested, std::int64_t scale) {
  const std::size_t bytes =
      (std::size_t{5} << 29) / static_cast<std::size_t>(scale) + (std::size_t{256} << 20);
  std::vector<Result> all;
  {
    Bench b(*tested.backend, bytes);
    all.push_back(copy(b, scale));
    all.push_back(product(b, "product", 8192 / scale, 8192 / scale, 8192 / scale));
    all.push_back(dequantize(b, 14336 / scale, 4096));
    add_linears(b, scale, all);
    for (const AttentionShape& a : attention_shapes(scale)) {
      for (Result& r : attention(b, tested, a)) all.push_back(std::move(r));
    }
    all.push_back(adamw(b, (std::int64_t{1} << 26) / scale));
  }
  const bool library = std::any_of(all.begin(), all.end(), [](const Result& r) {
    return r.name.rfind("attention", 0) == 0 && !r.by.empty() && r.by != kOwnKernels;
  });
  if (library) add_own_attention(all, bytes, scale);
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
    fmt::print("{:<40} {:>10.3f} ms {:>10.1f} {:<7} {:>4.0f} %  {}\n", r.name, 1e3 * r.seconds,
               r.rate() / 1e9, r.bytes ? "GB/s" : "GFLOP/s", 100 * part, r.by);
    cases.push_back({{"name", r.name},
                     {"seconds", r.seconds},
                     {"rate", r.rate()},
                     {"unit", r.bytes ? "B/s" : "FLOP/s"},
                     {"of_ceiling", part}});
    if (!r.by.empty()) cases.back()["by"] = r.by;
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
  CLI::App parser(
      "Times kernels against measured copies and products. With MEDVQA_LIBRARY_ATTENTION=0 in the "
      "environment no library does attention.");
  std::string file;
  std::int64_t scale = 1;
  parser.add_option("--scale", scale, "divides the sizes")
      ->check(CLI::IsMember({1, 2, 4, 8, 16, 32}));
  parser.add_option("--json", file, "where to write the cases to");
  CLI11_PARSE(parser, argc, argv);
  if (testing::available_backends().empty()) {
    throw UserError(ExitCode::device, "this machine has no such device");
  }
  const testing::TestedBackend& tested = testing::available_backends().front();
  report(measure(tested, scale), tested, scale, file);
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
