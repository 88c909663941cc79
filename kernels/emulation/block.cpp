#include "kernels/emulation/block.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>

#include "kernels/emulation/fault.h"

namespace medvqa::emulation {

namespace context = boost::context::detail;

thread_local Thread* Block::current_ = nullptr;

namespace {

// Each stack has as much room below it to overflow into, and neighbouring stacks start in different
// cache sets.
constexpr std::size_t kStackStride = 2 * kStackBytes + 1088;

constexpr std::uint64_t kStackEnd = 0x9d3c5a17e2b86f40u;  // overwritten where a stack overflows

std::string shown(uint3 v) {
  return fmt::format("({}, {}, {})", v.x, v.y, v.z);
}

std::string place(const Thread& t) {
  const std::string_view file = t.site.file;
  return fmt::format("{} ({}:{})", t.operation, file.substr(file.rfind('/') + 1), t.site.line);
}

bool same_site(Site a, Site b) {
  return a.line == b.line && (a.file == b.file || std::string_view(a.file) == b.file);
}

}  // namespace

Block& Block::instance() {
  static Block block;
  return block;
}

// Pages of a stack that nobody reaches cost nothing.
Block::Block()
    : memory_(Memory::instance()),
      stacks_(static_cast<std::byte*>(std::aligned_alloc(4096, kMaxThreads * kStackStride))),
      threads_(kMaxThreads) {
  if (stacks_ == nullptr) throw std::bad_alloc();
  for (unsigned i = 0; i < kMaxThreads; ++i)
    threads_[i].stack = stacks_ + (i + 1) * kStackStride - kStackBytes;
}

void Block::check_launch(const Launch& p) const {
  const auto check = [&](bool fine, const std::string& what) {
    if (!fine) {
      throw EmulationFault(fmt::format("kernel {}: {}", function_name(p.entry), what));
    }
  };
  const std::uint64_t threads = std::uint64_t{p.block.x} * p.block.y * p.block.z;
  check(threads > 0 && threads <= kMaxThreads && p.block.z <= 64,
        fmt::format("a block of {} x {} x {} threads", p.block.x, p.block.y, p.block.z));
  check(p.grid.x > 0 && p.grid.x <= 0x7fffffffu && p.grid.y > 0 && p.grid.y <= 0xffffu &&
            p.grid.z > 0 && p.grid.z <= 0xffffu,
        fmt::format("a grid of {} x {} x {} blocks", p.grid.x, p.grid.y, p.grid.z));
  check(p.dynamic_shared_bytes <= kSharedBytes,
        fmt::format("{} bytes of dynamic shared memory, at most {}", p.dynamic_shared_bytes,
                    kSharedBytes));
}

void Block::run_grid(const Launch& launch) {
  static std::mutex one_at_a_time;  // static shared memory exists once
  const std::lock_guard lock(one_at_a_time);
  check_launch(launch);
  launch_ = &launch;
  count_ = launch.block.x * launch.block.y * launch.block.z;
  memory_.begin_launch(launch.call, launch.call_bytes);
  for (unsigned z = 0; z < launch.grid.z && fault_.empty(); ++z) {
    for (unsigned y = 0; y < launch.grid.y && fault_.empty(); ++y) {
      for (unsigned x = 0; x < launch.grid.x && fault_.empty(); ++x) run_block({x, y, z});
    }
  }
  memory_.end_launch();
  throw_fault();
}

void Block::throw_fault() {
  if (fault_.empty()) return;
  for (Thread& t : threads_) {
    for (const AsyncCopy& c : t.open_copies) memory_.set_pending(c.shared, 16, false);
    for (const auto& group : t.copy_groups) {
      for (const AsyncCopy& c : group) memory_.set_pending(c.shared, 16, false);
    }
    t.open_copies.clear();
    t.copy_groups.clear();
  }
  const std::string text = std::exchange(fault_, {});
  if (exception_) std::rethrow_exception(std::exchange(exception_, nullptr));
  throw EmulationFault(text);
}

void Block::run_block(uint3 index) {
  index_ = index;
  dynamic_memory_ = memory_.begin_block(launch_->dynamic_shared_bytes);
  waiting_ = ended_ = 0;
  const unsigned warps = (count_ + kLanes - 1) / kLanes;
  warp_clocks_.assign(warps, 1);
  warp_waiting_.assign(warps, 0);
  warp_gone_.assign(warps, 0);
  if (count_ % kLanes != 0) warp_gone_.back() = ~0u << count_ % kLanes;
  unsigned rank = 0;
  for (unsigned z = 0; z < launch_->block.z; ++z) {
    for (unsigned y = 0; y < launch_->block.y; ++y) {
      for (unsigned x = 0; x < launch_->block.x; ++x) start(rank++, {x, y, z});
    }
  }
  while (ended_ < count_) {
    bool moved = false;
    for (unsigned i = 0; i < count_; ++i) {
      if (threads_[i].state != Thread::State::ready) continue;
      resume(threads_[i]);
      if (!fault_.empty()) return;
      moved = true;
    }
    if (!moved) {
      report_stuck();
      return;
    }
  }
}

void Block::start(unsigned rank, uint3 index) {
  Thread& t = threads_[rank];
  t.actor.rank = rank;
  t.actor.clock = 1;
  t.actor.seen.fill(0);
  t.index = index;
  t.state = Thread::State::ready;
  std::memcpy(t.stack, &kStackEnd, sizeof(kStackEnd));
  t.context = context::make_fcontext(t.stack + kStackBytes, kStackBytes, &Block::enter);
}

void Block::enter(context::transfer_t from) {
  Block& block = instance();
  block.scheduler_ = from.fctx;
  Thread& thread = *static_cast<Thread*>(from.data);
  try {
    current_ = &thread;
    block.launch_->thread(block.launch_->call);
    current_ = nullptr;
  } catch (...) {
    current_ = nullptr;
    block.exception_ = std::current_exception();
    block.fail(thread, "an exception");
  }
  block.end_thread(thread);
  block.suspend();
}

void Block::resume(Thread& thread) {
  thread.context = context::jump_fcontext(thread.context, &thread).fctx;
}

void Block::suspend() {
  scheduler_ = context::jump_fcontext(scheduler_, nullptr).fctx;
}

void Block::fail(const Thread& thread, const std::string& problem) {
  fault_ = fmt::format("kernel {}, block {}, thread {}: {}", function_name(launch_->entry),
                       shown(index_), shown(thread.index), problem);
  suspend();
  std::abort();  // nobody resumes it
}

void Block::end_thread(Thread& t) {
  if (!t.open_copies.empty() || !t.copy_groups.empty()) {
    fail(t, "ends while its cp.async are unfinished");
  }
  if (waiting_ > 0) {
    for (unsigned i = 0; i < count_; ++i) {
      if (threads_[i].state != Thread::State::at_block_barrier) continue;
      fail(t, fmt::format("divergent barrier: it ends while thread {} waits at {}",
                          shown(threads_[i].index), place(threads_[i])));
    }
  }
  if (std::memcmp(t.stack, &kStackEnd, sizeof(kStackEnd)) != 0) {
    fail_overflow(t);
  }
  t.state = Thread::State::ended;
  warp_gone_[t.actor.warp()] |= 1u << t.actor.lane();
  ++ended_;
}

// A block whose threads all wait, and not for each other.
void Block::report_stuck() {
  const Thread* waits = nullptr;
  const Thread* other = nullptr;
  for (unsigned i = 0; i < count_; ++i) {
    const Thread& t = threads_[i];
    if (t.state == Thread::State::at_warp_operation && waits == nullptr) waits = &t;
  }
  for (unsigned lane = 0; lane < kLanes && other == nullptr; ++lane) {
    if (((waits->mask >> lane) & 1u) == 0) continue;
    const Thread& t = thread_of(waits->actor.warp(), lane);
    const bool with_it = t.state == Thread::State::at_warp_operation && t.mask == waits->mask &&
                         same_site(t.site, waits->site);
    if (!with_it) other = &t;
  }
  fault_ = fmt::format(
      "kernel {}, block {}, thread {}: divergent: it waits at {} for thread {}, which {}",
      function_name(launch_->entry), shown(index_), shown(waits->index), place(*waits),
      shown(other->index),
      other->state == Thread::State::ended ? "has ended" : "waits at " + place(*other));
}

void Block::barrier(Thread& t, Site site) {
  t.operation = "__syncthreads";
  t.site = site;
  // Those that wait have been compared with each other.
  const Thread* other = waiting_ > 0 ? first_waiting_ : &t;
  const bool elsewhere = !same_site(other->site, site);
  for (unsigned i = 0; i < count_ && ended_ > 0 && !elsewhere; ++i) {
    if (threads_[i].state == Thread::State::ended) other = &threads_[i];
  }
  if (elsewhere || ended_ > 0) {
    fail(t, fmt::format("divergent barrier: it waits at {}, thread {} {}", place(t),
                        shown(other->index), elsewhere ? "at " + place(*other) : "has ended"));
  }
  if (waiting_ == 0) first_waiting_ = &t;
  t.state = Thread::State::at_block_barrier;
  warp_gone_[t.actor.warp()] |= 1u << t.actor.lane();
  if (++waiting_ == count_) {
    release_barrier();
  } else {
    suspend();
  }
}

void Block::release_barrier() {
  waiting_ = 0;
  // Nobody has ended, or this barrier would have failed.
  std::fill(warp_gone_.begin(), warp_gone_.end(), 0u);
  if (count_ % kLanes != 0) warp_gone_.back() = ~0u << count_ % kLanes;
  memory_.begin_interval();
  for (unsigned i = 0; i < count_; ++i) {
    threads_[i].state = Thread::State::ready;
    threads_[i].actor.clock = 1;
    threads_[i].actor.seen.fill(0);
  }
  warp_clocks_.assign(warp_clocks_.size(), 1);
}

// The other lanes of the mask either run, or wait at the same operation with the same mask.
void Block::check_lane(const Thread& t, unsigned lane) {
  const unsigned rank = t.actor.warp() * kLanes + lane;
  const auto names = [&] {
    return fmt::format("the mask {:#010x} of {} names lane {}, which ", t.mask, place(t), lane);
  };
  if (rank >= count_) fail(t, names() + "the block does not have");
  const Thread& other = threads_[rank];
  if (other.state == Thread::State::ended) fail(t, names() + "has ended");
  if (other.state == Thread::State::ready || joins(other, t)) return;
  const bool other_mask = other.state == Thread::State::at_warp_operation && other.mask != t.mask;
  fail(t, fmt::format("divergent: it calls {} with mask {:#010x}, lane {} waits at {}{}", place(t),
                      t.mask, lane, place(other),
                      other_mask ? fmt::format(" with mask {:#010x}", other.mask) : ""));
}

bool Block::joins(const Thread& other, const Thread& t) const {
  return other.state == Thread::State::at_warp_operation && other.mask == t.mask &&
         same_site(other.site, t.site);
}

void Block::warp_operation(Thread& t, const char* name, unsigned mask, Site site, void* operand,
                           void (*complete)(Block&, unsigned, const Operands&)) {
  t.operation = name;
  t.site = site;
  t.mask = mask;
  t.operand = operand;
  const unsigned own = 1u << t.actor.lane();
  if ((mask & own) == 0) {
    fail(t, fmt::format("the mask {:#010x} of {} leaves out the lane that calls, {}", mask,
                        place(t), t.actor.lane()));
  }
  const unsigned warp = t.actor.warp();
  unsigned& waiting = warp_waiting_[warp];
  const unsigned others = mask & ~own;
  // One of those that wait is looked at now, the others by the last to come.
  if ((others & waiting) != 0) {
    check_lane(t, static_cast<unsigned>(std::countr_zero(others & waiting)));
  }
  t.state = Thread::State::at_warp_operation;
  waiting |= own;
  if ((mask & waiting) != mask) {
    // Whoever cannot come: ended, absent, or at the block's barrier.
    for (unsigned rest = others & warp_gone_[warp]; rest != 0; rest &= rest - 1) {
      const auto lane = static_cast<unsigned>(std::countr_zero(rest));
      check_lane(t, lane);
    }
    return suspend();
  }
  Operands operands{};
  for (unsigned rest = mask; rest != 0; rest &= rest - 1) {
    const auto lane = static_cast<unsigned>(std::countr_zero(rest));
    check_lane(t, lane);
    operands[lane] = thread_of(warp, lane).operand;
  }
  for (unsigned rest = mask; rest != 0; rest &= rest - 1) {
    thread_of(warp, static_cast<unsigned>(std::countr_zero(rest))).state = Thread::State::ready;
  }
  waiting &= ~mask;
  complete(*this, warp, operands);
}

void Block::access(Thread& t, const void* address, std::size_t bytes, std::size_t alignment,
                   Access kind) {
  const auto* first = static_cast<const std::byte*>(address);
  if (first >= t.stack && first < t.stack + kStackBytes) {
    if ((reinterpret_cast<std::uintptr_t>(address) & (alignment - 1)) == 0) return;
    fail(t, fmt::format("accesses {} bytes of its own: misaligned", bytes));
  }
  if (!memory_.access(t.actor, address, bytes, alignment, kind)) {
    if (first < t.stack && first >= t.stack - kStackBytes) fail_overflow(t);
    const bool others = first >= stacks_ && first < stacks_ + kMaxThreads * kStackStride;
    fail(t, others ? "accesses a local variable of another thread" : memory_.fault());
  }
}

void Block::fail_overflow(const Thread& t) {
  fail(t, fmt::format("its local variables take more than {} bytes", kStackBytes));
}

std::uint16_t Block::next_clock(unsigned warp) {
  if (warp_clocks_[warp] == 0xffffu) {
    fail(thread_of(warp, 0), "too many __syncwarp between two barriers");
  }
  return ++warp_clocks_[warp];
}

}  // namespace medvqa::emulation
