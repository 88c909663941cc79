// The emulator must be able to fail: kernels with one planted fault each, and the sentence each
// fault is reported with. Beside each stands the kernel without it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/emulation/memory.h"
#include "machine.h"
#include "tests/emulation/device_array.h"

namespace medvqa::emulation {
namespace {

using cuda::launch;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// y[i] = x[n - 1 - i] through shared memory.
template <bool Barrier>
__global__ void reverse(const float* x, float* y) {
  __shared__ float tile[64];
  const unsigned i = threadIdx.x;
  tile[i] = x[i];
  if constexpr (Barrier) __syncthreads();
  y[i] = tile[63 - i];
}

TEST(PlantedFaults, MissingBarrier) {
  const DeviceArray<float> x(std::vector<float>(64, 1.0f)), y(64);
  const auto run = [&](auto kernel) {
    return fault_of([&] { launch(kernel, 1, 64, 0, nullptr, x.data(), y.data()); });
  };
  EXPECT_THAT(run(reverse<true>), IsEmpty());
  // The first thread reads what nobody wrote yet, a later one what it may not rely on.
  EXPECT_THAT(run(reverse<false>), AllOf(HasSubstr("kernel emulation::reverse<false>"),
                                         HasSubstr("block (0, 0, 0), thread (0, 0, 0)"),
                                         HasSubstr("uninitialised shared memory")));
}

// Every thread leaves a value, every thread reads its neighbour's; twice, so that the second round
// overwrites what the first still reads.
template <bool Barrier>
__global__ void two_rounds(float* y) {
  __shared__ float tile[64];
  const unsigned i = threadIdx.x;
  float sum = 0;
  for (int round = 0; round < 2; ++round) {
    tile[i] = static_cast<float>(round);
    __syncthreads();
    sum += tile[(i + 1) % 64];
    if constexpr (Barrier) __syncthreads();
  }
  y[i] = sum;
}

TEST(PlantedFaults, MissingBarrierBehindALoop) {
  const DeviceArray<float> y(64);
  const auto run = [&](auto kernel) {
    return fault_of([&] { launch(kernel, 1, 64, 0, nullptr, y.data()); });
  };
  EXPECT_THAT(run(two_rounds<true>), IsEmpty());
  EXPECT_THAT(run(two_rounds<false>), AllOf(HasSubstr("writes 4 bytes at static shared memory"),
                                            HasSubstr("race: another thread read there")));
}

// Neighbours of a warp exchange through shared memory.
template <bool Barrier>
__global__ void warp_neighbours(float* y) {
  __shared__ float tile[32];
  tile[threadIdx.x] = static_cast<float>(threadIdx.x);
  __syncwarp();
  const float other = tile[threadIdx.x ^ 1u];
  if constexpr (Barrier) __syncwarp();
  tile[threadIdx.x] = other;
  y[threadIdx.x] = other;
}

TEST(PlantedFaults, MissingWarpBarrier) {
  const DeviceArray<float> y(32);
  const auto run = [&](auto kernel) {
    return fault_of([&] { launch(kernel, 1, 32, 0, nullptr, y.data()); });
  };
  EXPECT_THAT(run(warp_neighbours<true>), IsEmpty());
  EXPECT_EQ(y.values()[4], 5.0f);
  EXPECT_THAT(run(warp_neighbours<false>), HasSubstr("race: another thread"));
}

// A shuffle orders nothing: the neighbour's value must still be waited for.
__global__ void shuffle_is_no_barrier(float* y) {
  __shared__ float tile[32];
  tile[threadIdx.x] = 1;
  const float zero = __shfl_sync(0xffffffffu, 0.0f, 0);
  y[threadIdx.x] = tile[threadIdx.x ^ 1u] + zero;
}

TEST(PlantedFaults, ShuffleTakenForABarrier) {
  const DeviceArray<float> y(32);
  EXPECT_THAT(fault_of([&] { launch(shuffle_is_no_barrier, 1, 32, 0, nullptr, y.data()); }),
              HasSubstr("race: another thread wrote there"));
}

// The sum of the lower half of a warp, taken by those lanes alone.
__global__ void half_sum(float* y, unsigned mask, int distance) {
  if (threadIdx.x >= 16) return;
  y[threadIdx.x] = __shfl_xor_sync(mask, static_cast<float>(threadIdx.x), distance);
}

TEST(PlantedFaults, WrongLaneInAShuffle) {
  const DeviceArray<float> y(32);
  const auto run = [&](unsigned mask, int distance, unsigned threads = 32) {
    return fault_of([&] { launch(half_sum, 1, threads, 0, nullptr, y.data(), mask, distance); });
  };
  EXPECT_THAT(run(0xffffu, 8), IsEmpty());
  EXPECT_EQ(y.values()[3], 11.0f);
  EXPECT_THAT(run(0xffffu, 16),
              HasSubstr("__shfl_xor_sync reads lane 16, which the mask 0x0000ffff leaves out"));
  EXPECT_THAT(run(0x0000fffeu, 1), HasSubstr("leaves out"));
  // Lane 16 is named, and never comes.
  EXPECT_THAT(run(0x1ffffu, 1), AllOf(HasSubstr("__shfl_xor_sync (planted_faults_test.cpp"),
                                      HasSubstr("thread (16, 0, 0), which has ended")));
  EXPECT_THAT(run(0xffffffu, 8, 20), HasSubstr("names lane 20, which the block does not have"));
}

// Rows of `tile` columns, the last tile cut at n; `slack` is the planted error.
__global__ void scale_tiles(float* x, int n, int tile, int slack) {
  const int begin = static_cast<int>(blockIdx.x) * tile;
  for (int i = begin + static_cast<int>(threadIdx.x); i < begin + tile + slack && i < n + slack;
       i += static_cast<int>(blockDim.x)) {
    x[i] *= 2;
  }
}

TEST(PlantedFaults, OffByOneTile) {
  const DeviceArray<float> x(std::vector<float>(100, 1.0f));
  const auto run = [&](unsigned blocks, int tile, int slack) {
    return fault_of(
        [&] { launch(scale_tiles, blocks, 32, 0, nullptr, x.data(), 100, tile, slack); });
  };
  EXPECT_THAT(run(4, 32, 0), IsEmpty());
  EXPECT_EQ(x.values(), std::vector<float>(100, 2.0f));
  // The end of the array.
  EXPECT_THAT(run(1, 100, 1), AllOf(HasSubstr("thread (4, 0, 0)"), HasSubstr("offset 400 of"),
                                    HasSubstr("(400 bytes): out of bounds")));
  // The next block's tile.
  EXPECT_THAT(run(4, 32, 1),
              AllOf(HasSubstr("block (1, 0, 0), thread (0, 0, 0)"), HasSubstr("offset 128 of"),
                    HasSubstr("another block wrote there")));
}

TEST(PlantedFaults, TheGapBetweenTensors) {
  const DeviceArray<float> x(std::vector<float>(100, 1.0f));
  name_range(x.data(), 40, "x");
  forbid(x.data() + 10, 8);
  EXPECT_THAT(fault_of([&] { launch(scale_tiles, 1, 32, 0, nullptr, x.data(), 10, 10, 0); }),
              IsEmpty());
  EXPECT_THAT(fault_of([&] { launch(scale_tiles, 1, 32, 0, nullptr, x.data(), 11, 11, 0); }),
              AllOf(HasSubstr("offset 40 of x (40 bytes)"), HasSubstr("between tensors")));
}

__global__ void dynamic_tile(float* y, int words) {
  float* tile = cuda::dynamic_shared<float>();
  for (int i = static_cast<int>(threadIdx.x); i < words; i += 32) tile[i] = 1;
  __syncthreads();
  y[threadIdx.x] = tile[0];
}

TEST(PlantedFaults, DynamicSharedMemoryIsAsLargeAsAskedFor) {
  const DeviceArray<float> y(32);
  const auto run = [&](std::size_t bytes, int words) {
    return fault_of([&] { launch(dynamic_tile, 1, 32, bytes, nullptr, y.data(), words); });
  };
  EXPECT_THAT(run(256, 64), IsEmpty());
  EXPECT_THAT(run(256, 65), AllOf(HasSubstr("offset 256 of the 256 bytes of dynamic shared memory"),
                                  HasSubstr("out of bounds")));
  EXPECT_THAT(run(kSharedBytes + 1, 1), HasSubstr("at most 65536"));
}

__global__ void load_four(const float* x, float* y) {
  const cuda::Vector<float, 4> v = cuda::load_vector<float, 4>(x);
  y[threadIdx.x] = v[0] + v[1] + v[2] + v[3];
}
// As a kernel might write it without load_vector.
__global__ void load_word(const unsigned char* x, unsigned* y) {
  y[0] = *reinterpret_cast<const unsigned*>(x);
}

TEST(PlantedFaults, MisalignedVectorLoad) {
  const DeviceArray<float> x(std::vector<float>{1, 2, 3, 4, 5}), y(1);
  const auto run = [&](int from) {
    return fault_of([&] { launch(load_four, 1, 1, 0, nullptr, x.data() + from, y.data()); });
  };
  EXPECT_THAT(run(0), IsEmpty());
  EXPECT_EQ(y.values()[0], 10.0f);
  EXPECT_THAT(run(1), AllOf(HasSubstr("reads 16 bytes at offset 4 of"), HasSubstr("misaligned")));
  const DeviceArray<unsigned char> bytes(8);
  const DeviceArray<unsigned> word(1);
  EXPECT_THAT(fault_of([&] { launch(load_word, 1, 1, 0, nullptr, bytes.data() + 2, word.data()); }),
              HasSubstr("misaligned"));
}

__global__ void barrier_for_some(float* y, unsigned some) {
  if (threadIdx.x < some) __syncthreads();
  y[threadIdx.x] = 1;
}
__global__ void two_barriers(float* y, unsigned some) {
  if (threadIdx.x < some) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  y[threadIdx.x] = 1;
}
__global__ void shuffle_and_barrier(float* y, unsigned some) {
  float value = 1;
  if (threadIdx.x < some) {
    value = __shfl_sync(0xffffffffu, value, 0);
  } else {
    __syncwarp();
  }
  y[threadIdx.x] = value;
}

TEST(PlantedFaults, DivergentBarrier) {
  const DeviceArray<float> y(64);
  const auto run = [&](auto kernel, unsigned some) {
    return fault_of([&] { launch(kernel, 1, 64, 0, nullptr, y.data(), some); });
  };
  for (const unsigned all : {0u, 64u}) {
    EXPECT_THAT(run(barrier_for_some, all), IsEmpty());
    EXPECT_THAT(run(two_barriers, all), IsEmpty());
    EXPECT_THAT(run(shuffle_and_barrier, all), IsEmpty());
  }
  EXPECT_THAT(run(barrier_for_some, 32), AllOf(HasSubstr("thread (32, 0, 0): divergent barrier"),
                                               HasSubstr("ends while thread (0, 0, 0) waits at")));
  EXPECT_THAT(run(two_barriers, 5),
              AllOf(HasSubstr("thread (5, 0, 0): divergent barrier: it waits at __syncthreads"),
                    HasSubstr("thread (0, 0, 0) at __syncthreads")));
  EXPECT_THAT(run(shuffle_and_barrier, 7), AllOf(HasSubstr("divergent: it calls __syncwarp"),
                                                 HasSubstr("lane 0 waits at __shfl_sync")));
}

// A float's atomic sum would depend on the order of threads: there is none.
template <class T>
concept HasAtomicAdd = requires(T* address, T value) {
  atomicAdd(address, value);
};
static_assert(HasAtomicAdd<int> && HasAtomicAdd<unsigned> && HasAtomicAdd<unsigned long long>);
static_assert(!HasAtomicAdd<float> && !HasAtomicAdd<double> && !HasAtomicAdd<BFloat16> &&
              !HasAtomicAdd<Float16>);

template <bool Atomic>
__global__ void count_positive(const float* x, int* count) {
  if (x[blockIdx.x * blockDim.x + threadIdx.x] <= 0) return;
  if constexpr (Atomic) {
    atomicAdd(count, 1);
  } else {
    *count += 1;
  }
}

TEST(PlantedFaults, SumWithoutAtomics) {
  std::vector<float> values(96, 1.0f);
  values[5] = -1;
  const DeviceArray<float> x(values);
  const DeviceArray<int> count(1);
  const auto run = [&](auto kernel, unsigned blocks, unsigned threads) {
    return fault_of([&] { launch(kernel, blocks, threads, 0, nullptr, x.data(), count.data()); });
  };
  EXPECT_THAT(run(count_positive<true>, 3, 32), IsEmpty());
  EXPECT_EQ(count.values()[0], 95);
  EXPECT_THAT(run(count_positive<false>, 1, 32), HasSubstr("race: another thread wrote there"));
  EXPECT_THAT(run(count_positive<false>, 3, 1), HasSubstr("another block wrote there"));
}

// Block b reads what block b - 1 wrote, or writes what it read.
__global__ void pass_on(float* x, bool writes_left) {
  const unsigned b = blockIdx.x;
  if (writes_left) {
    x[b] = x[b + 1];
  } else {
    x[b + 1] = x[b];
  }
}

TEST(PlantedFaults, RaceBetweenBlocks) {
  const DeviceArray<float> x(std::vector<float>(8, 1.0f));
  const auto run = [&](unsigned blocks, bool left) {
    return fault_of([&] { launch(pass_on, blocks, 1, 0, nullptr, x.data(), left); });
  };
  EXPECT_THAT(run(1, true), IsEmpty());
  EXPECT_THAT(run(1, false), IsEmpty());
  EXPECT_THAT(run(2, false), AllOf(HasSubstr("block (1, 0, 0)"), HasSubstr("reads 4 bytes"),
                                   HasSubstr("another block wrote there")));
  EXPECT_THAT(run(2, true), AllOf(HasSubstr("block (1, 0, 0)"), HasSubstr("writes 4 bytes"),
                                  HasSubstr("another block read there")));
}

__global__ void uninitialised_tail(float* y) {
  __shared__ float tile[33];
  tile[threadIdx.x] = 1;
  __syncthreads();
  y[threadIdx.x] = tile[threadIdx.x + 1];
}

TEST(PlantedFaults, UninitialisedSharedMemory) {
  const DeviceArray<float> y(64);
  EXPECT_THAT(fault_of([&] { launch(uninitialised_tail, 1, 32, 0, nullptr, y.data()); }),
              AllOf(HasSubstr("thread (31, 0, 0)"), HasSubstr("uninitialised shared memory")));
  // Nor does a block see what the one before it left there.
  EXPECT_THAT(fault_of([&] { launch(uninitialised_tail, 2, 32, 0, nullptr, y.data()); }),
              HasSubstr("uninitialised shared memory"));
}

__global__ void copy_without_wait(const float* x, float* y, bool wait, bool barrier) {
  __shared__ __align__(16) float tile[128];
  cuda::cp_async16(tile + 4 * threadIdx.x, x + 4 * threadIdx.x);
  cuda::cp_async_commit();
  if (wait) cuda::cp_async_wait<0>();
  if (barrier) __syncthreads();
  y[threadIdx.x] = tile[127 - threadIdx.x];
  cuda::cp_async_wait<0>();
}

TEST(PlantedFaults, AsynchronousCopyNotWaitedFor) {
  std::vector<float> values(128);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  const DeviceArray<float> x(values), y(32);
  const auto run = [&](bool wait, bool barrier) {
    return fault_of(
        [&] { launch(copy_without_wait, 1, 32, 0, nullptr, x.data(), y.data(), wait, barrier); });
  };
  EXPECT_THAT(run(true, true), IsEmpty());
  EXPECT_EQ(y.values()[3], 124.0f);
  EXPECT_THAT(run(false, true), HasSubstr("an unfinished cp.async writes there"));
  EXPECT_THAT(run(true, false), HasSubstr("uninitialised shared memory"));
}

}  // namespace
}  // namespace medvqa::emulation
