// The kernels' sources are compiled with -fsanitize=thread but not linked with its library: the
// compiler calls these functions before every load and store, and here they check them.
#include <cstddef>

#include "kernels/emulation/block.h"

namespace {
using medvqa::emulation::Access;
using medvqa::emulation::Block;

// An object of sixteen bytes may be a struct that is aligned to its members only.
constexpr std::size_t alignment_of(std::size_t bytes) {
  return bytes < 8 ? bytes : 8;
}

void touch(const void* address, std::size_t bytes, std::size_t alignment, Access kind) {
  if (Block::current() == nullptr) return;
  const Block::Inside inside;
  Block::instance().access(inside.thread(), address, bytes, alignment, kind);
}
}  // namespace

// NOLINTBEGIN: the names are the compiler's.
extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}

#define MEDVQA_TSAN_HOOKS(size)                        \
  void __tsan_read##size(void* p) {                    \
    touch(p, size, alignment_of(size), Access::read);  \
  }                                                    \
  void __tsan_write##size(void* p) {                   \
    touch(p, size, alignment_of(size), Access::write); \
  }                                                    \
  void __tsan_volatile_read##size(void* p) {           \
    touch(p, size, alignment_of(size), Access::read);  \
  }                                                    \
  void __tsan_volatile_write##size(void* p) {          \
    touch(p, size, alignment_of(size), Access::write); \
  }                                                    \
  void __tsan_unaligned_read##size(void* p) {          \
    touch(p, size, 1, Access::read);                   \
  }                                                    \
  void __tsan_unaligned_write##size(void* p) {         \
    touch(p, size, 1, Access::write);                  \
  }                                                    \
  void __tsan_read_write##size(void* p) {              \
    touch(p, size, alignment_of(size), Access::read);  \
    touch(p, size, alignment_of(size), Access::write); \
  }                                                    \
  void __tsan_unaligned_read_write##size(void* p) {    \
    touch(p, size, 1, Access::read);                   \
    touch(p, size, 1, Access::write);                  \
  }
MEDVQA_TSAN_HOOKS(1)
MEDVQA_TSAN_HOOKS(2)
MEDVQA_TSAN_HOOKS(4)
MEDVQA_TSAN_HOOKS(8)
MEDVQA_TSAN_HOOKS(16)
#undef MEDVQA_TSAN_HOOKS

void __tsan_read_range(void* p, std::size_t bytes) {
  touch(p, bytes, 1, Access::read);
}
void __tsan_write_range(void* p, std::size_t bytes) {
  touch(p, bytes, 1, Access::write);
}

// The linker sends every call of memcpy, memmove and memset of the program here.
void* __real_memcpy(void* to, const void* from, std::size_t bytes);
void* __real_memmove(void* to, const void* from, std::size_t bytes);
void* __real_memset(void* to, int value, std::size_t bytes);

void* __wrap_memcpy(void* to, const void* from, std::size_t bytes) {
  touch(from, bytes, 1, Access::read);
  touch(to, bytes, 1, Access::write);
  return __real_memcpy(to, from, bytes);
}
void* __wrap_memmove(void* to, const void* from, std::size_t bytes) {
  touch(from, bytes, 1, Access::read);
  touch(to, bytes, 1, Access::write);
  return __real_memmove(to, from, bytes);
}
void* __wrap_memset(void* to, int value, std::size_t bytes) {
  touch(to, bytes, 1, Access::write);
  return __real_memset(to, value, bytes);
}

// Atomics of the host's code in the same files (reference counts); kernels have machine.h's.
#define MEDVQA_TSAN_ATOMIC(bits, T)                                                               \
  T __tsan_atomic##bits##_load(const volatile T* p, int) {                                        \
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);                                                  \
  }                                                                                               \
  void __tsan_atomic##bits##_store(volatile T* p, T v, int) {                                     \
    __atomic_store_n(p, v, __ATOMIC_SEQ_CST);                                                     \
  }                                                                                               \
  T __tsan_atomic##bits##_exchange(volatile T* p, T v, int) {                                     \
    return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST);                                           \
  }                                                                                               \
  T __tsan_atomic##bits##_fetch_add(volatile T* p, T v, int) {                                    \
    return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST);                                            \
  }                                                                                               \
  T __tsan_atomic##bits##_fetch_sub(volatile T* p, T v, int) {                                    \
    return __atomic_fetch_sub(p, v, __ATOMIC_SEQ_CST);                                            \
  }                                                                                               \
  int __tsan_atomic##bits##_compare_exchange_strong(volatile T* p, T* old, T v, int, int) {       \
    return __atomic_compare_exchange_n(p, old, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST) ? 1  \
                                                                                             : 0; \
  }                                                                                               \
  int __tsan_atomic##bits##_compare_exchange_weak(volatile T* p, T* old, T v, int, int) {         \
    return __tsan_atomic##bits##_compare_exchange_strong(p, old, v, 0, 0);                        \
  }
MEDVQA_TSAN_ATOMIC(8, unsigned char)
MEDVQA_TSAN_ATOMIC(16, unsigned short)
MEDVQA_TSAN_ATOMIC(32, unsigned)
MEDVQA_TSAN_ATOMIC(64, unsigned long)
#undef MEDVQA_TSAN_ATOMIC
}
// NOLINTEND
