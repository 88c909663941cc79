#include "kernels/cpu/pair_product.h"

#include <gtest/gtest.h>

#include <vector>

namespace medvqa::cpu {
namespace {

// Small whole numbers: every product and sum is exact.
std::vector<BFloat16> whole_numbers(std::int64_t n, std::uint32_t seed) {
  std::vector<BFloat16> values(static_cast<std::size_t>(n));
  for (BFloat16& v : values) {
    seed = seed * 1664525u + 1013904223u;
    v = BFloat16(static_cast<float>(static_cast<int>(seed >> 28) - 8));
  }
  return values;
}

struct Sizes {
  std::int64_t m, n, k;
};

// Every size of micro-kernel, alone and several at once, and sums over one pair and many.
std::vector<Sizes> sizes() {
  std::vector<Sizes> list;
  for (std::int64_t m = 1; m <= 17; ++m) {
    for (std::int64_t n = 16; n <= 112; n += 16) list.push_back({m, n, m % 4 == 0 ? 40 : 2});
  }
  return list;
}

float expected(const Sizes& s, const std::vector<BFloat16>& a, const std::vector<BFloat16>& b,
               std::int64_t i, std::int64_t j) {
  float sum = 0;
  for (std::int64_t k = 0; k < s.k; ++k) {
    sum += static_cast<float>(a[static_cast<std::size_t>(i * s.k + k)]) *
           static_cast<float>(b[static_cast<std::size_t>(k * s.n + j)]);
  }
  return sum;
}

// a as it is, then a stored [k / 2][m][2]; b packed from its rows, then from its columns.
TEST(PairProduct, EqualsPlainSumsInEverySizeAndLayout) {
  if (!multiplies_pairs()) GTEST_SKIP() << "this processor is not given products of pairs";
  for (const Sizes& s : sizes()) {
    const auto a = whole_numbers(s.m * s.k, 1);
    const auto b = whole_numbers(s.k * s.n, 2);
    std::vector<BFloat16> a_pairs(a.size()), b_columns(b.size()), from_rows(b.size()),
        from_columns(b.size());
    for (std::int64_t i = 0; i < s.m * s.k; ++i) {
      const std::int64_t row = i / s.k;
      const std::int64_t k = i % s.k;
      a_pairs[static_cast<std::size_t>((k / 2 * s.m + row) * 2 + k % 2)] =
          a[static_cast<std::size_t>(i)];
    }
    for (std::int64_t i = 0; i < s.k * s.n; ++i) {
      b_columns[static_cast<std::size_t>(i % s.n * s.k + i / s.n)] = b[static_cast<std::size_t>(i)];
    }
    pack_rows(b.data(), s.n, s.k, s.n, s.k, from_rows.data());
    pack_columns(b_columns.data(), s.k, s.n, s.k, s.n, from_columns.data());
    const std::int64_t c_row = s.n + 3;
    std::vector<float> c(static_cast<std::size_t>(s.m * c_row), 7.0f);
    multiply_pairs({.m = s.m,
                    .n = s.n,
                    .k = s.k,
                    .a = a.data(),
                    .a_row = s.k,
                    .a_pair = 2,
                    .b = from_rows.data(),
                    .b_columns = kPackedColumns * s.k,
                    .c = c.data(),
                    .c_row = c_row});
    multiply_pairs({.m = s.m,
                    .n = s.n,
                    .k = s.k,
                    .a = a_pairs.data(),
                    .a_row = 2,
                    .a_pair = 2 * s.m,
                    .b = from_columns.data(),
                    .b_columns = kPackedColumns * s.k,
                    .c = c.data(),
                    .c_row = c_row,
                    .accumulate = true});
    for (std::int64_t i = 0; i < s.m; ++i) {
      for (std::int64_t j = 0; j < c_row; ++j) {
        const float want = j < s.n ? 2 * expected(s, a, b, i, j) : 7.0f;
        ASSERT_EQ(c[static_cast<std::size_t>(i * c_row + j)], want)
            << s.m << " x " << s.n << " x " << s.k << " at " << i << ", " << j;
      }
    }
  }
}

// Lengths that are filled up: what stands there is zero.
TEST(PairProduct, PackingFillsUpWithZeros) {
  const auto source = whole_numbers(5 * 16, 3);
  std::vector<BFloat16> rows(16 * 16, BFloat16(9)), columns(16 * 16, BFloat16(9));
  pack_rows(source.data(), 16, 5, 16, 16, rows.data());
  pack_columns(source.data(), 16, 5, 16, 16, columns.data());
  for (std::size_t i = 0; i < 16; ++i) {
    for (std::size_t j = 0; j < 16; ++j) {
      const float row = i < 5 ? static_cast<float>(source[i * 16 + j]) : 0.0f;
      EXPECT_EQ(static_cast<float>(rows[(i / 2 * 16 + j) * 2 + i % 2]), row) << i << ", " << j;
      EXPECT_EQ(static_cast<float>(columns[(j / 2 * 16 + i) * 2 + j % 2]), row) << i << ", " << j;
    }
  }
}

}  // namespace
}  // namespace medvqa::cpu
