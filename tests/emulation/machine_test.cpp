// The emulated machine does what CUDA's documentation says: lanes, votes, fragments, copies.
#include "machine.h"

#include <gtest/gtest.h>

#include <numeric>

#include "tests/emulation/device_array.h"

namespace medvqa::emulation {
namespace {

using cuda::launch;

constexpr unsigned kAll = 0xffffffffu;

__global__ void indices(int* y) {
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const unsigned threads = blockDim.x * blockDim.y * blockDim.z;
  y[block * threads + thread] = static_cast<int>(100 * block + 10 * threadIdx.z + threadIdx.y);
}

TEST(Machine, IndicesOfThreadsAndBlocks) {
  const DeviceArray<int> y(4 * 12);
  launch(indices, dim3(1, 2, 2), dim3(3, 2, 2), 0, nullptr, y.data());
  for (int i = 0; i < 48; ++i) {
    EXPECT_EQ(y.values()[static_cast<std::size_t>(i)], i / 12 * 100 + i / 6 % 2 * 10 + i / 3 % 2);
  }
}

__global__ void shuffles(int* y, int operand, int width) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  int* own = y + 4 * threadIdx.x;
  const int value = static_cast<int>(threadIdx.x);
  own[0] = __shfl_sync(kAll, value, operand, width);
  own[1] = __shfl_up_sync(kAll, value, static_cast<unsigned>(operand), width);
  own[2] = __shfl_down_sync(kAll, value, static_cast<unsigned>(operand), width);
  own[3] = __shfl_xor_sync(kAll, value, operand, width);
  (void)lane;
}

// CUDA C++ Programming Guide, "Warp Shuffle Functions".
TEST(Machine, ShufflesStayInTheirSegment) {
  const DeviceArray<int> y(4 * 64);
  for (const int width : {1, 2, 4, 8, 16, 32}) {
    for (int operand = 0; operand < 32; ++operand) {
      launch(shuffles, 1, 64, 0, nullptr, y.data(), operand, width);
      const std::vector<int> got = y.values();
      for (int thread = 0; thread < 64; ++thread) {
        const int lane = thread % 32, warp = thread - lane, begin = lane / width * width;
        const int up = lane - operand < begin ? lane : lane - operand;
        const int down = lane + operand >= begin + width ? lane : lane + operand;
        const int crossed = lane ^ operand;
        const std::vector<int> expected{warp + begin + operand % width, warp + up, warp + down,
                                        warp + (crossed >= begin + width ? lane : crossed)};
        const auto at = got.begin() + 4 * thread;
        EXPECT_EQ(std::vector<int>(at, at + 4), expected)
            << "thread " << thread << " operand " << operand << " width " << width;
      }
    }
  }
}

__global__ void votes(unsigned* y) {
  if (threadIdx.x % 32 >= 24) return;
  constexpr unsigned kMask = 0xffffffu;
  const unsigned lane = threadIdx.x % 32;
  unsigned* own = y + 7 * threadIdx.x;
  own[0] = __ballot_sync(kMask, lane % 3 == 0);
  own[1] = static_cast<unsigned>(__any_sync(kMask, lane == 23));
  own[2] = static_cast<unsigned>(__all_sync(kMask, lane < 24));
  own[3] = static_cast<unsigned>(__all_sync(kMask, lane < 23));
  own[4] = cuda::reduce_add_sync(kMask, threadIdx.x);
  own[5] = cuda::reduce_max_sync(kMask, threadIdx.x ^ 5u);
  own[6] = cuda::reduce_min_sync(kMask, threadIdx.x ^ 5u);
}

TEST(Machine, VotesAndReductions) {
  const DeviceArray<unsigned> y(7 * 64);
  launch(votes, 1, 64, 0, nullptr, y.data());
  const std::vector<unsigned> got = y.values();
  for (std::size_t thread = 0; thread < 64; ++thread) {
    if (thread % 32 >= 24) continue;
    const auto begin = static_cast<unsigned>(thread / 32 * 32);
    const std::vector<unsigned> expected{0x249249u,  1,    1, 0, 24 * begin + 23 * 12,
                                         begin + 23, begin};
    const auto at = got.begin() + static_cast<std::ptrdiff_t>(7 * thread);
    EXPECT_EQ(std::vector<unsigned>(at, at + 7), expected) << "thread " << thread;
  }
}

__global__ void atomics(unsigned* y) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  atomicAdd(&y[0], i);
  atomicSub(&y[1], i);
  atomicMax(&y[2], i);
  atomicMin(&y[3], i);
  atomicOr(&y[4], 1u << (i % 32));
  atomicAnd(&y[5], ~(1u << (i % 7)));
  atomicXor(&y[6], i);
  if (atomicCAS(&y[7], 9u, i) == 9u) atomicExch(&y[8], i + 1);
}

TEST(Machine, IntegerAtomicsAcrossBlocks) {
  const DeviceArray<unsigned> y(std::vector<unsigned>{5, 9000, 7, 50, 0, 0xffu, 0, 9, 0});
  launch(atomics, 4, 32, 0, nullptr, y.data());
  EXPECT_EQ(y.values(),
            (std::vector<unsigned>{5 + 127 * 64, 9000 - 127 * 64, 127, 0, kAll, 0x80u, 0, 0, 1}));
}

// C = A B + C with fragments filled element by element from the layout that matrix.h states.
template <class T, int Depth>
__global__ void multiply_by_elements(const T* a, const T* b, float* c) {
  const unsigned g = threadIdx.x / 4, t = threadIdx.x % 4;
  const auto pair = [](T low, T high) {
    return std::uint32_t{low.bits} | std::uint32_t{high.bits} << 16;
  };
  std::uint32_t fa[Depth / 4], fb[Depth / 8];
  for (unsigned k = 0; k < Depth / 8; ++k) {
    const unsigned column = 8 * k + 2 * t;
    fa[2 * k] = pair(a[g * Depth + column], a[g * Depth + column + 1]);
    fa[2 * k + 1] = pair(a[(g + 8) * Depth + column], a[(g + 8) * Depth + column + 1]);
    fb[k] = pair(b[column * 8 + g], b[(column + 1) * 8 + g]);
  }
  float fc[4];
  for (unsigned i = 0; i < 4; ++i) fc[i] = c[(g + i / 2 * 8) * 8 + 2 * t + i % 2];
  if constexpr (Depth == 16) {
    cuda::mma_m16n8k16<T>(fc, fa, fb);
  } else {
    cuda::mma_m16n8k8<T>(fc, fa, fb);
  }
  for (unsigned i = 0; i < 4; ++i) c[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = fc[i];
}

// The usual way: A and B row-major in shared memory, fragments by ldmatrix. `swapped` plants the
// wrong order of two quarters of A.
template <class T>
__global__ void multiply_by_ldmatrix(const T* a, const T* b, float* c, bool swapped) {
  __shared__ __align__(16) T tile_a[16 * 16];
  __shared__ __align__(16) T tile_b[16 * 8];
  const unsigned lane = threadIdx.x;
  cuda::store_vector(tile_a + 8 * lane, cuda::load_vector<T, 8>(a + 8 * lane));
  if (lane < 16) cuda::store_vector(tile_b + 8 * lane, cuda::load_vector<T, 8>(b + 8 * lane));
  __syncthreads();
  std::uint32_t fa[4], fb[2];
  const unsigned row = lane % 16, half = lane / 16;
  cuda::ldmatrix(
      fa, tile_a + (swapped ? (row % 8 + 8 * half) * 16 + row / 8 * 8 : row * 16 + 8 * half));
  cuda::ldmatrix_trans(fb, tile_b + row * 8);
  const unsigned g = lane / 4, t = lane % 4;
  float fc[4];
  for (unsigned i = 0; i < 4; ++i) fc[i] = c[(g + i / 2 * 8) * 8 + 2 * t + i % 2];
  cuda::mma_m16n8k16<T>(fc, fa, fb);
  for (unsigned i = 0; i < 4; ++i) c[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = fc[i];
}

// B given by columns: no transposition.
template <class T>
__global__ void read_columns(const T* b_columns, std::uint32_t* y) {
  __shared__ __align__(16) T tile[8 * 16];
  const unsigned lane = threadIdx.x;
  if (lane < 16) cuda::store_vector(tile + 8 * lane, cuda::load_vector<T, 8>(b_columns + 8 * lane));
  __syncthreads();
  std::uint32_t by_column[2], one[1];
  cuda::ldmatrix(by_column, tile + lane % 8 * 16 + lane / 8 % 2 * 8);
  cuda::ldmatrix(one, tile + lane % 8 * 16);
  y[3 * lane] = by_column[0];
  y[3 * lane + 1] = by_column[1];
  y[3 * lane + 2] = one[0];
}

// Small integers: every product and sum is exact.
struct Product {
  std::vector<float> a, b, c, expected;
  explicit Product(int depth) : a(at(16 * depth)), b(at(depth * 8)), c(16 * 8), expected(16 * 8) {
    for (std::size_t i = 0; i < a.size(); ++i) a[i] = static_cast<float>((i * 37 + 5) % 19) - 9;
    for (std::size_t i = 0; i < b.size(); ++i) b[i] = static_cast<float>((i * 23 + 3) % 17) - 8;
    for (std::size_t i = 0; i < c.size(); ++i) c[i] = static_cast<float>(i % 5);
    for (int row = 0; row < 16; ++row) {
      for (int column = 0; column < 8; ++column) {
        float sum = c[at(row * 8 + column)];
        for (int k = 0; k < depth; ++k) sum += a[at(row * depth + k)] * b[at(k * 8 + column)];
        expected[at(row * 8 + column)] = sum;
      }
    }
  }
  static std::size_t at(int i) { return static_cast<std::size_t>(i); }
};

template <class T>
std::vector<T> narrow(const std::vector<float>& values) {
  std::vector<T> v;
  for (const float x : values) v.push_back(static_cast<T>(x));
  return v;
}

template <class T>
class Fragments : public ::testing::Test {};
using HalfTypes = ::testing::Types<Float16, BFloat16>;
TYPED_TEST_SUITE(Fragments, HalfTypes);

TYPED_TEST(Fragments, ProductOfDocumentedLayouts) {
  const Product shallow(8), deep(16);
  const auto run = [](const Product& p, auto kernel) {
    const DeviceArray<TypeParam> a(narrow<TypeParam>(p.a)), b(narrow<TypeParam>(p.b));
    const DeviceArray<float> c(p.c);
    launch(kernel, 1, 32, 0, nullptr, a.data(), b.data(), c.data());
    return c.values();
  };
  EXPECT_EQ(run(deep, multiply_by_elements<TypeParam, 16>), deep.expected);
  EXPECT_EQ(run(shallow, multiply_by_elements<TypeParam, 8>), shallow.expected);
}

TYPED_TEST(Fragments, LoadedMatricesAreTheProductsOperands) {
  const Product p(16);
  const DeviceArray<TypeParam> a(narrow<TypeParam>(p.a)), b(narrow<TypeParam>(p.b));
  for (const bool swapped : {false, true}) {
    const DeviceArray<float> c(p.c);
    launch(multiply_by_ldmatrix<TypeParam>, 1, 32, 0, nullptr, a.data(), b.data(), c.data(),
           swapped);
    EXPECT_EQ(c.values() == p.expected, !swapped);
  }
}

TYPED_TEST(Fragments, ColumnsNeedNoTransposition) {
  const Product p(16);
  std::vector<float> columns(128);
  for (std::size_t i = 0; i < 128; ++i) columns[i] = p.b[i % 16 * 8 + i / 16];
  const std::vector<TypeParam> narrow_columns = narrow<TypeParam>(columns);
  const DeviceArray<TypeParam> b(narrow_columns);
  const DeviceArray<std::uint32_t> y(96);
  launch(read_columns<TypeParam>, 1, 32, 0, nullptr, b.data(), y.data());
  const auto word = [&](std::size_t column, std::size_t k) {
    const std::size_t at = column * 16 + k;
    return std::uint32_t{narrow_columns[at].bits} | std::uint32_t{narrow_columns[at + 1].bits}
                                                        << 16;
  };
  for (std::size_t lane = 0; lane < 32; ++lane) {
    EXPECT_EQ(y.values()[3 * lane], word(lane / 4, 2 * (lane % 4)));
    EXPECT_EQ(y.values()[3 * lane + 1], word(lane / 4, 2 * (lane % 4) + 8));
    EXPECT_EQ(y.values()[3 * lane + 2], word(lane / 4, 2 * (lane % 4)));
  }
}

// y[i] = x[i] for n elements, 128 at a time through a ring of two tiles, zeros behind the end.
__global__ void copy_through_ring(const float* x, float* y, int n, int tiles) {
  __shared__ __align__(16) float ring[2][128];
  const int i = static_cast<int>(threadIdx.x);
  const auto fetch = [&](int tile) {
    const int from = 128 * tile + 4 * i;
    if (tile < tiles) cuda::cp_async16(&ring[tile % 2][4 * i], x + from, from < n);
    cuda::cp_async_commit();
  };
  fetch(0);
  for (int tile = 0; tile < tiles; ++tile) {
    fetch(tile + 1);
    cuda::cp_async_wait<1>();
    __syncthreads();
    for (int k = i; k < 128; k += 32) y[128 * tile + k] = ring[tile % 2][127 - k];
    __syncthreads();
  }
  cuda::cp_async_wait<0>();
}

TEST(Machine, AsynchronousCopiesInGroups) {
  std::vector<float> values(500);
  std::iota(values.begin(), values.end(), 1.0f);
  const DeviceArray<float> x(values), y(512);
  launch(copy_through_ring, 1, 32, 0, nullptr, x.data(), y.data(), 500, 4);
  values.resize(512);
  const std::vector<float> got = y.values();
  for (std::size_t i = 0; i < 512; ++i) {
    EXPECT_EQ(got[i], values[i / 128 * 128 + 127 - i % 128]) << i;
  }
}

}  // namespace
}  // namespace medvqa::emulation
