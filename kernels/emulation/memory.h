// The memory a kernel under the emulator may touch, and what its threads have done to every byte
// since the last barrier.
//
// Two accesses of one byte, one of them a write, by two threads are ordered by a __syncthreads
// between them, or by a __syncwarp of both lanes; otherwise they are a race. Between blocks of one
// launch nothing orders. Integer atomics do not race with each other. Shared memory holds nothing
// at a block's start.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace medvqa::emulation {

inline constexpr std::size_t kSharedBytes = 64 * 1024;  // the most of one block, as on sm_75
inline constexpr unsigned kLanes = 32;

// Device memory from now on: [memory, memory + bytes).
void add_allocation(const void* memory, std::size_t bytes);
void remove_allocation(const void* memory);
// Bytes of an allocation that no kernel may touch (the gaps between tensors), or may again; the
// name of a range appears in faults.
void forbid(const void* begin, std::size_t bytes);
void name_range(const void* begin, std::size_t bytes, const std::string& name);

enum class Access : std::uint8_t { read, write, atomic };

// A thread as the memory sees it.
struct Actor {
  unsigned rank = 0;        // in the block; lane = rank % 32
  std::uint16_t clock = 0;  // counts the warp's barriers; an access carries the clock of its time
  // The latest clock of each lane of the warp that happened before what this thread does now.
  std::array<std::uint16_t, kLanes> seen{};

  unsigned lane() const { return rank % kLanes; }
  unsigned warp() const { return rank / kLanes; }
};

class Memory {
 public:
  static Memory& instance();

  void add(const void* memory, std::size_t bytes);
  void remove(const void* memory);
  void forbid(const void* begin, std::size_t bytes);
  void name(const void* begin, std::size_t bytes, const std::string& text);

  // The order of things: a launch, its blocks, the intervals between a block's barriers.
  void begin_launch(const void* parameters, std::size_t parameter_bytes);
  // Returns the block's dynamic shared memory.
  void* begin_block(std::size_t dynamic_bytes);
  void begin_interval() { ++interval_; }
  void end_launch();

  // Whether the access is allowed; fault() then says what is wrong with it.
  bool access(const Actor& actor, const void* address, std::size_t bytes, std::size_t alignment,
              Access kind);
  const std::string& fault() const { return fault_; }
  bool is_shared(const void* address, std::size_t bytes);
  // Where an address lies, in words.
  std::string describe(const void* address) const;
  // Marks bytes that an unfinished asynchronous copy will write.
  void set_pending(const void* address, std::size_t bytes, bool pending);

 private:
  // What happened to one byte. Times are intervals, numbered over all launches.
  struct Cell {
    std::uint32_t written;
    std::uint16_t writer;
    std::uint16_t write_clock;
    std::uint32_t read;
    std::uint32_t read_elsewhere;  // by an earlier block
    std::uint32_t readers;         // lanes of one warp
    std::uint16_t read_clock;
    std::uint8_t reader_warp;
    bool several_warps : 1;
    bool atomic : 1;
    bool pending : 1;
    bool forbidden : 1;
  };
  struct FreeCells {
    void operator()(Cell* cells) const;
  };
  enum class Kind : std::uint8_t { global, shared_static, shared_dynamic, read_only };
  struct Region {
    const std::byte* begin = nullptr;
    const std::byte* end = nullptr;
    Kind kind = Kind::global;
    int number = 0;
    // One a byte, all zero at first; made when they are first needed.
    std::unique_ptr<Cell[], FreeCells> cells = {};
    struct Name {
      const std::byte *begin, *end;
      std::string text;
    };
    std::vector<Name> names = {};
    bool holds(const std::byte* first, const std::byte* last) const {
      return begin <= first && last <= end;
    }
    bool shared() const { return kind == Kind::shared_static || kind == Kind::shared_dynamic; }
    Cell& cell(const std::byte* at);
    std::size_t capacity() const {
      return kind == Kind::shared_dynamic ? kSharedBytes : static_cast<std::size_t>(end - begin);
    }
  };

  Memory();
  Region* find(const std::byte* begin, const std::byte* end);
  // What is wrong with one byte's access; null if nothing is.
  const char* check(const Actor& actor, const Region& region, const Cell& cell, Access kind) const;
  bool has_read(const Actor& actor, const Cell& cell) const;
  const char* conflict(const Actor& actor, const Cell& cell, Access kind) const;
  void record(const Actor& actor, Cell& cell, Access kind) const;
  bool fail(const char* problem, const std::byte* address, std::size_t bytes, Access kind,
            const Cell* cell);
  bool earlier_block(std::uint32_t time) const { return time >= launch_ && time < block_; }

  std::map<const std::byte*, std::unique_ptr<Region>> allocations_;
  Region image_, constants_, parameters_, dynamic_;
  std::unique_ptr<std::byte[]> dynamic_memory_;
  Region* latest_ = nullptr;
  int allocated_ = 0;
  std::uint32_t interval_ = 1, block_ = 1, launch_ = 1;
  std::string fault_;
};

}  // namespace medvqa::emulation
