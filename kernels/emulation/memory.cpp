#include "kernels/emulation/memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <new>

// The program's own image, from the linker: what is read-only, then what is not.
extern "C" {
extern char __executable_start, __data_start, _end;  // NOLINT
}

namespace medvqa::emulation {

namespace {

const std::byte* bytes_of(const void* p) {
  return static_cast<const std::byte*>(p);
}

const char* name_of(Access kind) {
  switch (kind) {
    case Access::read:
      return "reads";
    case Access::write:
      return "writes";
    case Access::atomic:
      return "atomically changes";
  }
  return "?";
}

constexpr const char* kWriteRace = "race: another thread wrote there";
constexpr const char* kReadRace = "race: another thread read there";

bool ordered(const Actor& actor, unsigned lane, std::uint16_t clock) {
  return lane == actor.lane() || actor.seen[lane] >= clock;
}

}  // namespace

void add_allocation(const void* memory, std::size_t bytes) {
  Memory::instance().add(memory, bytes);
}
void remove_allocation(const void* memory) {
  Memory::instance().remove(memory);
}
void forbid(const void* begin, std::size_t bytes) {
  Memory::instance().forbid(begin, bytes);
}
void name_range(const void* begin, std::size_t bytes, const std::string& name) {
  Memory::instance().name(begin, bytes, name);
}

void Memory::FreeCells::operator()(Cell* cells) const {
  std::free(cells);
}

Memory::Cell& Memory::Region::cell(const std::byte* at) {
  if (!cells) {
    // Fresh pages of a large block cost nothing until they are touched.
    void* zeros = std::calloc(capacity(), sizeof(Cell));
    if (zeros == nullptr) throw std::bad_alloc();
    cells.reset(static_cast<Cell*>(zeros));
  }
  return cells[static_cast<std::size_t>(at - begin)];
}

Memory& Memory::instance() {
  static Memory memory;
  return memory;
}

Memory::Memory() : dynamic_memory_(new std::byte[kSharedBytes]) {
  constants_.begin = bytes_of(&__executable_start);
  constants_.end = bytes_of(&__data_start);
  constants_.kind = Kind::read_only;
  image_.begin = bytes_of(&__data_start);
  image_.end = bytes_of(&_end);
  image_.kind = Kind::shared_static;
  parameters_.kind = Kind::read_only;
  dynamic_.begin = dynamic_.end = dynamic_memory_.get();
  dynamic_.kind = Kind::shared_dynamic;
}

void Memory::add(const void* memory, std::size_t bytes) {
  auto region = std::make_unique<Region>();
  region->begin = bytes_of(memory);
  region->end = region->begin + bytes;
  region->number = ++allocated_;
  allocations_[region->begin] = std::move(region);
}

void Memory::remove(const void* memory) {
  latest_ = nullptr;
  allocations_.erase(bytes_of(memory));
}

void Memory::forbid(const void* begin, std::size_t bytes) {
  const std::byte* first = bytes_of(begin);
  Region* region = find(first, first + bytes);
  if (region == nullptr) return;
  for (std::size_t i = 0; i < bytes; ++i) region->cell(first + i).forbidden = true;
}

void Memory::name(const void* begin, std::size_t bytes, const std::string& text) {
  const std::byte* first = bytes_of(begin);
  Region* region = find(first, first + bytes);
  if (region != nullptr) region->names.push_back({first, first + bytes, text});
}

void Memory::begin_launch(const void* parameters, std::size_t parameter_bytes) {
  launch_ = ++interval_;
  parameters_.begin = bytes_of(parameters);
  parameters_.end = parameters_.begin + parameter_bytes;
}

void* Memory::begin_block(std::size_t dynamic_bytes) {
  block_ = ++interval_;
  dynamic_.end = dynamic_.begin + dynamic_bytes;
  return dynamic_memory_.get();
}

void Memory::end_launch() {
  ++interval_;
  parameters_.begin = parameters_.end = nullptr;
  dynamic_.end = dynamic_.begin;
  latest_ = nullptr;
}

Memory::Region* Memory::find(const std::byte* begin, const std::byte* end) {
  if (latest_ != nullptr && latest_->holds(begin, end)) return latest_;
  Region* found = nullptr;
  for (Region* r : {&dynamic_, &image_, &parameters_, &constants_}) {
    if (r->holds(begin, end)) found = r;
  }
  if (found == nullptr) {
    auto next = allocations_.upper_bound(begin);
    if (next == allocations_.begin()) return nullptr;
    Region& before = *std::prev(next)->second;
    if (!before.holds(begin, end)) return nullptr;
    found = &before;
  }
  return latest_ = found;
}

bool Memory::is_shared(const void* address, std::size_t bytes) {
  const Region* region = find(bytes_of(address), bytes_of(address) + bytes);
  return region != nullptr && region->shared();
}

void Memory::set_pending(const void* address, std::size_t bytes, bool pending) {
  Region* region = find(bytes_of(address), bytes_of(address) + bytes);
  if (region == nullptr) return;
  for (std::size_t i = 0; i < bytes; ++i) region->cell(bytes_of(address) + i).pending = pending;
}

bool Memory::access(const Actor& actor, const void* address, std::size_t bytes,
                    std::size_t alignment, Access kind) {
  const std::byte* first = bytes_of(address);
  Region* region = find(first, first + bytes);
  if (region == nullptr) return fail("out of bounds", first, bytes, kind, nullptr);
  if ((reinterpret_cast<std::uintptr_t>(address) & (alignment - 1)) != 0) {
    return fail("misaligned", first, bytes, kind, nullptr);
  }
  if (region->kind == Kind::read_only) {
    return kind == Access::read || fail("memory is read-only", first, bytes, kind, nullptr);
  }
  Cell* cells = &region->cell(first);
  for (std::size_t i = 0; i < bytes; ++i) {
    if (kind == Access::read && has_read(actor, cells[i])) continue;
    const char* problem = check(actor, *region, cells[i], kind);
    if (problem != nullptr) return fail(problem, first + i, bytes - i, kind, &cells[i]);
    record(actor, cells[i], kind);
  }
  return true;
}

// Since its last barrier: a write of another thread since then would have been a race.
bool Memory::has_read(const Actor& actor, const Cell& cell) const {
  return cell.read == interval_ && cell.reader_warp == actor.warp() &&
         cell.read_clock == actor.clock && ((cell.readers >> actor.lane()) & 1u) != 0 &&
         !cell.pending;
}

const char* Memory::check(const Actor& actor, const Region& region, const Cell& cell,
                          Access kind) const {
  if (cell.forbidden) return "between tensors";
  if (cell.pending) return "an unfinished cp.async writes there";
  if (kind != Access::write && region.shared() && cell.written < block_) {
    return "uninitialised shared memory";
  }
  if (region.kind == Kind::global) {
    const bool atomics = kind == Access::atomic && cell.atomic;
    if (earlier_block(cell.written) && !atomics) return "another block wrote there";
    const bool was_read = earlier_block(cell.read) || cell.read_elsewhere >= launch_;
    if (kind != Access::read && was_read) return "another block read there";
  }
  return conflict(actor, cell, kind);
}

// Between threads of the block since the last __syncthreads.
const char* Memory::conflict(const Actor& actor, const Cell& cell, Access kind) const {
  const auto writer = unsigned{cell.writer};
  if (cell.written == interval_ && writer != actor.rank &&
      !(kind == Access::atomic && cell.atomic)) {
    const bool in_order =
        writer / kLanes == actor.warp() && ordered(actor, writer % kLanes, cell.write_clock);
    if (!in_order) return kWriteRace;
  }
  if (kind == Access::read || cell.read != interval_) return nullptr;
  if (cell.several_warps || cell.reader_warp != actor.warp()) {
    return kReadRace;
  }
  for (unsigned lane = 0; lane < kLanes; ++lane) {
    const bool reader = ((cell.readers >> lane) & 1u) != 0;
    if (reader && !ordered(actor, lane, cell.read_clock)) return kReadRace;
  }
  return nullptr;
}

void Memory::record(const Actor& actor, Cell& cell, Access kind) const {
  if (kind != Access::read) {
    cell.written = interval_;
    cell.writer = static_cast<std::uint16_t>(actor.rank);
    cell.write_clock = actor.clock;
    cell.atomic = kind == Access::atomic;
    return;
  }
  const std::uint32_t own = 1u << actor.lane();
  if (cell.read != interval_) {
    if (earlier_block(cell.read)) cell.read_elsewhere = cell.read;
    cell.read = interval_;
    cell.several_warps = false;
    cell.reader_warp = static_cast<std::uint8_t>(actor.warp());
    cell.readers = own;
  } else if (cell.reader_warp != actor.warp()) {
    cell.several_warps = true;
  } else if (cell.readers != own && cell.read_clock != actor.clock) {
    // Readers that happened before this one are behind it for everyone.
    bool all_before = true;
    for (unsigned lane = 0; lane < kLanes; ++lane) {
      const bool reader = ((cell.readers >> lane) & 1u) != 0;
      all_before = all_before && (!reader || ordered(actor, lane, cell.read_clock));
    }
    if (!all_before) {
      cell.readers |= own;
      cell.read_clock = std::max(cell.read_clock, actor.clock);
      return;
    }
    cell.readers = own;
  } else {
    cell.readers |= own;
  }
  cell.read_clock = actor.clock;
}

bool Memory::fail(const char* problem, const std::byte* address, std::size_t bytes, Access kind,
                  const Cell* cell) {
  fault_ = fmt::format("{} {} bytes at {}: {}", name_of(kind), bytes, describe(address), problem);
  if (problem == kWriteRace) fault_ += fmt::format(" (thread {} of the block)", cell->writer);
  if (problem == kReadRace) fault_ += fmt::format(" (warp {} of the block)", cell->reader_warp);
  return false;
}

std::string Memory::describe(const void* where) const {
  const std::byte* address = bytes_of(where);
  const auto offset = [&](const std::byte* from) { return address - from; };
  if (address >= dynamic_.begin && address < dynamic_.begin + kSharedBytes) {
    return fmt::format("offset {} of the {} bytes of dynamic shared memory", offset(dynamic_.begin),
                       dynamic_.end - dynamic_.begin);
  }
  if (address >= image_.begin && address < image_.end) {
    return fmt::format("static shared memory {}", static_cast<const void*>(address));
  }
  if (address >= constants_.begin && address < constants_.end) return "the program's constants";
  auto next = allocations_.upper_bound(address);
  const Region* nearest = next == allocations_.begin() ? nullptr : std::prev(next)->second.get();
  if (nearest != nullptr && address >= nearest->end + 4096) nearest = nullptr;
  if (nearest == nullptr && next != allocations_.end() && next->first - address <= 4096) {
    nearest = next->second.get();
  }
  if (nearest == nullptr) {
    return fmt::format("{}, far from every allocation", static_cast<const void*>(address));
  }
  std::string text = fmt::format("offset {} of allocation {} ({} bytes)", offset(nearest->begin),
                                 nearest->number, nearest->end - nearest->begin);
  const Region::Name* name = nullptr;
  for (const Region::Name& n : nearest->names) {
    const bool closer = name == nullptr || n.begin <= address;
    if (closer) name = &n;
  }
  if (name != nullptr) {
    text += fmt::format(", offset {} of {} ({} bytes)", offset(name->begin), name->text,
                        name->end - name->begin);
  }
  return text;
}

}  // namespace medvqa::emulation
