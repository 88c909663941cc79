// What machine.h of the emulation is built on: the running thread, barriers, exchanges between
// lanes, checked accesses. Kernels use machine.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

// NOLINTBEGIN(readability-identifier-naming): CUDA's names
struct uint3 {
  unsigned x = 0, y = 0, z = 0;
};

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned width = 1, unsigned height = 1, unsigned depth = 1)
      : x(width), y(height), z(depth) {}
};
// NOLINTEND(readability-identifier-naming)

namespace medvqa::emulation {

// Where in the kernel's text a collective operation was called.
struct Site {
  const char* file;
  int line;
};

struct Launch {
  const void* entry;                 // the kernel, for its name
  void (*thread)(const void* call);  // runs it for one thread
  const void* call;                  // what `thread` reads
  std::size_t call_bytes;
  dim3 grid, block;
  std::size_t dynamic_shared_bytes;
};
// Throws EmulationFault where the kernel breaks a rule, InternalError where the launch itself does.
void run_grid(const Launch& launch);

// By value: the kernel's own reads of them are not accesses of device memory.
uint3 thread_index();
uint3 block_index();
dim3 block_shape();
dim3 grid_shape();

void block_barrier(Site site);
void warp_barrier(unsigned mask, Site site);

enum class Shuffle : std::uint8_t { index, up, down, exclusive_or };
std::uint64_t shuffle_bits(Shuffle kind, unsigned mask, std::uint64_t value, int operand, int width,
                           Site site);

template <class T>
T shuffle(Shuffle kind, unsigned mask, T value, int operand, int width, Site site) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = shuffle_bits(kind, mask, bits, operand, width, site);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

unsigned ballot(unsigned mask, bool predicate, Site site);
enum class Reduction : std::uint8_t { add, max, min };
unsigned reduce(Reduction kind, unsigned mask, unsigned value, Site site);

// Moves bytes as one access of the kernel; `size` is also the alignment asked for.
void load(void* to, const void* from, std::size_t size);
void store(void* to, const void* from, std::size_t size);
void check_atomic(const void* address, std::size_t size);
void move_unchecked(void* to, const void* from, std::size_t size);

void* dynamic_shared_memory();

// `global` null: zeros.
void async_copy(void* shared, const void* global);
void async_commit();
void async_wait(int pending);

}  // namespace medvqa::emulation
