#include "kernels/cpu/pair_product.h"

#include <array>
#include <cstring>
#include <utility>

#include "kernels/cpu/avx512_bf16.h"

namespace medvqa::cpu {

#if MEDVQA_AVX512_BF16

namespace {

// One call makes kRows x (16 kColumns) elements of c. Their sums stay in registers for all of k:
// of the 32, kRows * kColumns hold sums, kColumns the row pair of b, one the pair of a. A 5 x 5
// kernel does 25 dot products (1600 FLOP, 25 cycles) for 10 loads, of which the processor can do
// 25 to 50 in that time; their latency of 6 cycles needs 6 sums at least.
template <int kRows, int kColumns>
MEDVQA_TARGET_AVX512_BF16 void kernel(const PairProduct& p) {
  static_assert(kRows * kColumns + kColumns + 1 <= 32);
  __m512 sums[kRows][kColumns];
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < kColumns; ++j) {
      sums[i][j] = p.accumulate ? _mm512_loadu_ps(p.c + i * p.c_row + j * kPackedColumns)
                                : _mm512_setzero_ps();
    }
  }
  const BFloat16* a = p.a;
  const BFloat16* b = p.b;
  for (std::int64_t k = 0; k < p.k; k += 2) {
    __m512i pairs[kColumns];
#pragma GCC unroll 8
    for (int j = 0; j < kColumns; ++j) pairs[j] = _mm512_loadu_si512(b + j * p.b_columns);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      int pair;
      std::memcpy(&pair, a + i * p.a_row, sizeof(pair));
      const __m512i left = _mm512_set1_epi32(pair);
#pragma GCC unroll 8
      for (int j = 0; j < kColumns; ++j) sums[i][j] = dot_pairs(sums[i][j], left, pairs[j]);
    }
    a += p.a_pair;
    b += 2 * kPackedColumns;
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < kColumns; ++j) {
      _mm512_storeu_ps(p.c + i * p.c_row + j * kPackedColumns, sums[i][j]);
    }
  }
}

using Kernel = void (*)(const PairProduct&);
constexpr std::int64_t kMostColumns = 5;
// Rows that fit beside one to five columns.
constexpr std::array<std::int64_t, kMostColumns + 1> kMostRows = {0, 8, 8, 8, 6, 5};

template <int kColumns, int... kRow>
constexpr std::array<Kernel, 8> kernels_of(std::integer_sequence<int, kRow...>) {
  return {kernel<kRow + 1, kColumns>...};
}
template <int kColumns>
constexpr std::array<Kernel, 8> kernels_of() {
  return kernels_of<kColumns>(std::make_integer_sequence<int, kMostRows[kColumns]>());
}
constexpr std::array<std::array<Kernel, 8>, kMostColumns> kKernels = {
    kernels_of<1>(), kernels_of<2>(), kernels_of<3>(), kernels_of<4>(), kernels_of<5>()};

// Cuts n into as few parts of at most `most` as there can be, of nearly one size: f(begin, size).
template <class F>
void for_each_part(std::int64_t n, std::int64_t most, F&& f) {
  const std::int64_t parts = (n + most - 1) / most;
  for (std::int64_t i = 0; i < parts; ++i) f(n * i / parts, n * (i + 1) / parts - n * i / parts);
}

}  // namespace

bool multiplies_pairs() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  constexpr unsigned kAmxBf16 = 1u << 22;  // of leaf 7's edx
  const bool amx = __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (edx & kAmxBf16) != 0;
  return __builtin_cpu_supports("avx512bf16") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
         !amx;
}

// In this order a block of b, at most 80 columns by k (75 KiB for a block of keys), stays in the
// caches while all rows of a pass.
void multiply_pairs(const PairProduct& p) {
  for_each_part(p.n / kPackedColumns, kMostColumns, [&](std::int64_t column, std::int64_t columns) {
    const auto c = static_cast<std::size_t>(columns);
    for_each_part(p.m, kMostRows[c], [&](std::int64_t row, std::int64_t rows) {
      PairProduct part = p;
      part.a += row * p.a_row;
      part.b += column * p.b_columns;
      part.c += row * p.c_row + column * kPackedColumns;
      kKernels[c - 1][static_cast<std::size_t>(rows - 1)](part);
    });
  });
}

#else

bool multiplies_pairs() {
  return false;
}

#endif

}  // namespace medvqa::cpu
