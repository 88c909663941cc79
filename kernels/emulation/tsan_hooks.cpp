// The kernels' sources are compiled with -fsanitize=thread but not linked with its library: the
// compiler calls these functions before every load and store, and here they check them.
#include <cstddef>
#include <cstring>

#include "kernels/emulation/block.h"

namespace {
using medvqa::emulation::Access;
using medvqa::emulation::Block;

void touch(const void* address, std::size_t bytes, std::size_t alignment, Access kind) {
  if (Block::current() != nullptr) Block::instance().access(address, bytes, alignment, kind);
}
}  // namespace

// NOLINTBEGIN: the names are the compiler's.
extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}

#define MEDVQA_TSAN_HOOKS(size)                     \
  void __tsan_read##size(void* p) {                 \
    touch(p, size, size, Access::read);             \
  }                                                 \
  void __tsan_write##size(void* p) {                \
    touch(p, size, size, Access::write);            \
  }                                                 \
  void __tsan_volatile_read##size(void* p) {        \
    touch(p, size, size, Access::read);             \
  }                                                 \
  void __tsan_volatile_write##size(void* p) {       \
    touch(p, size, size, Access::write);            \
  }                                                 \
  void __tsan_unaligned_read##size(void* p) {       \
    touch(p, size, 1, Access::read);                \
  }                                                 \
  void __tsan_unaligned_write##size(void* p) {      \
    touch(p, size, 1, Access::write);               \
  }                                                 \
  void __tsan_read_write##size(void* p) {           \
    touch(p, size, size, Access::read);             \
    touch(p, size, size, Access::write);            \
  }                                                 \
  void __tsan_unaligned_read_write##size(void* p) { \
    touch(p, size, 1, Access::read);                \
    touch(p, size, 1, Access::write);               \
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

void* __tsan_memcpy(void* to, const void* from, std::size_t bytes) {
  touch(from, bytes, 1, Access::read);
  touch(to, bytes, 1, Access::write);
  return std::memcpy(to, from, bytes);
}
void* __tsan_memmove(void* to, const void* from, std::size_t bytes) {
  touch(from, bytes, 1, Access::read);
  touch(to, bytes, 1, Access::write);
  return std::memmove(to, from, bytes);
}
void* __tsan_memset(void* to, int value, std::size_t bytes) {
  touch(to, bytes, 1, Access::write);
  return std::memset(to, value, bytes);
}
}
// NOLINTEND
