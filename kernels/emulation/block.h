// One block at a time: a fiber for each of its threads, resumed in turn until it waits or ends.
#pragma once

#include <boost/context/detail/fcontext.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <string>
#include <utility>
#include <vector>

#include "kernels/emulation/emulator.h"
#include "kernels/emulation/memory.h"

namespace medvqa::emulation {

inline constexpr std::size_t kStackBytes = 64 * 1024;
inline constexpr unsigned kMaxThreads = 1024;

struct AsyncCopy {
  void* shared;
  const void* global;
};

struct Thread {
  enum class State : std::uint8_t { ready, at_block_barrier, at_warp_operation, ended };

  Actor actor;
  uint3 index;
  State state = State::ready;
  const char* operation = "";  // what it waits at
  Site site{"", 0};
  unsigned mask = 0;
  void* operand = nullptr;
  std::vector<AsyncCopy> open_copies;
  std::deque<std::vector<AsyncCopy>> copy_groups;
  std::byte* stack = nullptr;
  boost::context::detail::fcontext_t context = nullptr;
};

// Compute capability of the device in use: 10 * major + minor.
void use_architecture(int architecture);

// The operands of a warp operation by lane; null for lanes outside the mask.
using Operands = std::array<void*, kLanes>;

class Block {
 public:
  static Block& instance();
  // The thread whose kernel code runs; null on the host, and inside the emulator.
  static Thread* current() { return current_; }

  // From here to the end of the scope the emulator works for the thread, not its kernel. What the
  // emulator calls may be the kernel file's copy of an inline function, whose accesses are watched
  // like a kernel's.
  class Inside {
   public:
    Inside() : thread_(*std::exchange(current_, nullptr)) {}
    ~Inside() { current_ = &thread_; }
    Inside(const Inside&) = delete;
    Inside& operator=(const Inside&) = delete;
    Thread& thread() const { return thread_; }

   private:
    Thread& thread_;
  };

  // Throws EmulationFault.
  void run_grid(const Launch& launch);

  void barrier(Thread& thread, Site site);
  // Waits for all lanes of the mask; the last to come calls `complete` for all.
  void warp_operation(Thread& thread, const char* name, unsigned mask, Site site, void* operand,
                      void (*complete)(Block&, unsigned warp, const Operands&));
  void access(Thread& thread, const void* address, std::size_t bytes, std::size_t alignment,
              Access kind);
  // Ends the launch: the thread that runs never goes on.
  [[noreturn]] void fail(const Thread& thread, const std::string& problem);

  Thread& thread_of(unsigned warp, unsigned lane) { return threads_[warp * kLanes + lane]; }
  const Launch& launch() const { return *launch_; }
  uint3 index() const { return index_; }
  void* dynamic_memory() const { return dynamic_memory_; }
  // The time of a warp after its next barrier.
  std::uint16_t next_clock(unsigned warp);

 private:
  Block();
  void check_launch(const Launch& launch) const;
  void run_block(uint3 index);
  void start(unsigned rank, uint3 index);
  void resume(Thread& thread);
  void suspend();
  void end_thread(Thread& thread);
  [[noreturn]] void fail_overflow(const Thread& thread);
  void release_barrier();
  void check_lane(const Thread& thread, unsigned lane);
  bool joins(const Thread& other, const Thread& thread) const;
  void report_stuck();
  void throw_fault();
  static void enter(boost::context::detail::transfer_t from);

  static thread_local Thread* current_;

  Memory& memory_;
  std::byte* stacks_ = nullptr;
  std::vector<Thread> threads_;
  std::vector<std::uint16_t> warp_clocks_;
  std::vector<unsigned> warp_waiting_;  // lanes at a warp operation
  std::vector<unsigned> warp_gone_;     // lanes that can come to none
  unsigned count_ = 0;                  // of the block's threads
  unsigned waiting_ = 0;                // at the block's barrier
  unsigned ended_ = 0;
  const Thread* first_waiting_ = nullptr;
  const Launch* launch_ = nullptr;
  uint3 index_;
  void* dynamic_memory_ = nullptr;
  boost::context::detail::fcontext_t scheduler_ = nullptr;
  std::string fault_;
  std::exception_ptr exception_;
};

// The demangled name of a function of this program; its address where the symbols are stripped.
std::string function_name(const void* function);

}  // namespace medvqa::emulation
