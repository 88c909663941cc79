// What machine.h calls, in terms of Block.
#include <fmt/format.h>

#include <bit>
#include <utility>

#include "kernels/emulation/block.h"
#include "kernels/emulation/matrix.h"

namespace medvqa::emulation {

namespace {

template <class T, class F>
void for_each(const Operands& operands, F&& f) {
  for (unsigned lane = 0; lane < kLanes; ++lane) {
    if (operands[lane] != nullptr) f(lane, *static_cast<T*>(operands[lane]));
  }
}

constexpr unsigned kWholeWarp = 0xffffffffu;

int architecture_in_use = 80;

}  // namespace

void use_architecture(int architecture) {
  architecture_in_use = architecture;
}

void run_grid(const Launch& launch) {
  Block::instance().run_grid(launch);
}

uint3 thread_index() {
  return Block::current()->index;
}
uint3 block_index() {
  return Block::instance().index();
}
dim3 block_shape() {
  return Block::instance().launch().block;
}
dim3 grid_shape() {
  return Block::instance().launch().grid;
}

void block_barrier(Site site) {
  const Block::Inside inside;
  Block::instance().barrier(inside.thread(), site);
}

namespace {
// Everything each lane has done or seen happens before what all of them do next.
void join_lanes(Block& block, unsigned warp, const Operands& o) {
  std::array<std::uint16_t, kLanes> seen{};
  for_each<Thread>(o, [&](unsigned lane, const Thread& t) {
    for (unsigned i = 0; i < kLanes; ++i) seen[i] = std::max(seen[i], t.actor.seen[i]);
    seen[lane] = std::max(seen[lane], t.actor.clock);
  });
  const std::uint16_t clock = block.next_clock(warp);
  for_each<Thread>(o, [&](unsigned, Thread& t) {
    t.actor.seen = seen;
    t.actor.clock = clock;
  });
}
}  // namespace

void warp_barrier(unsigned mask, Site site) {
  const Block::Inside inside;
  Thread& t = inside.thread();
  Block::instance().warp_operation(t, "__syncwarp", mask, site, &t, join_lanes);
}

namespace {
struct ShuffleOperand {
  std::uint64_t value;
  unsigned source;
  std::uint64_t result;
};

unsigned source_lane(Shuffle kind, unsigned lane, int operand, unsigned width) {
  const unsigned begin = lane / width * width;
  const auto o = static_cast<unsigned>(operand);
  switch (kind) {
    case Shuffle::index:
      return begin + o % width;
    case Shuffle::up:
      return lane >= begin + o ? lane - o : lane;
    case Shuffle::down:
      return o < width && lane + o < begin + width ? lane + o : lane;
    case Shuffle::exclusive_or:
      return (lane ^ o) < begin + width ? lane ^ o : lane;
  }
  return lane;
}
}  // namespace

std::uint64_t shuffle_bits(Shuffle kind, unsigned mask, std::uint64_t value, int operand, int width,
                           Site site) {
  static constexpr const char* kNames[] = {"__shfl_sync", "__shfl_up_sync", "__shfl_down_sync",
                                           "__shfl_xor_sync"};
  const Block::Inside inside;
  Block& b = Block::instance();
  Thread& t = inside.thread();
  const char* name = kNames[static_cast<int>(kind)];
  if (width < 1 || width > 32 || !std::has_single_bit(static_cast<unsigned>(width))) {
    b.fail(t, fmt::format("{} with width {}", name, width));
  }
  ShuffleOperand own{value,
                     source_lane(kind, t.actor.lane(), operand, static_cast<unsigned>(width)), 0};
  if (((mask >> own.source) & 1u) == 0) {
    b.fail(t, fmt::format("{} reads lane {}, which the mask {:#010x} leaves out", name, own.source,
                          mask));
  }
  b.warp_operation(t, name, mask, site, &own, [](Block&, unsigned, const Operands& o) {
    for_each<ShuffleOperand>(o, [&](unsigned, ShuffleOperand& s) {
      s.result = static_cast<const ShuffleOperand*>(o[s.source])->value;
    });
  });
  return own.result;
}

unsigned ballot(unsigned mask, bool predicate, Site site) {
  const Block::Inside inside;
  unsigned word = predicate ? 1 : 0;
  const auto complete = [](Block&, unsigned, const Operands& o) {
    unsigned all = 0;
    for_each<unsigned>(o, [&](unsigned lane, unsigned vote) { all |= vote << lane; });
    for_each<unsigned>(o, [&](unsigned, unsigned& result) { result = all; });
  };
  Block::instance().warp_operation(inside.thread(), "a vote", mask, site, &word, complete);
  return word;
}

unsigned reduce(Reduction kind, unsigned mask, unsigned value, Site site) {
  struct Operand {
    Reduction kind;
    unsigned value;
  } own{kind, value};
  const auto complete = [](Block&, unsigned, const Operands& o) {
    bool first = true;
    unsigned result = 0;
    for_each<Operand>(o, [&](unsigned, const Operand& p) {
      if (first || (p.kind == Reduction::max && p.value > result) ||
          (p.kind == Reduction::min && p.value < result)) {
        result = p.value;
      } else if (p.kind == Reduction::add) {
        result += p.value;
      }
      first = false;
    });
    for_each<Operand>(o, [&](unsigned, Operand& p) { p.value = result; });
  };
  const Block::Inside inside;
  Block::instance().warp_operation(inside.thread(), "a reduction", mask, site, &own, complete);
  return own.value;
}

void load(void* to, const void* from, std::size_t size) {
  const Block::Inside inside;
  Block::instance().access(inside.thread(), from, size, size, Access::read);
  std::memcpy(to, from, size);
}

void store(void* to, const void* from, std::size_t size) {
  const Block::Inside inside;
  Block::instance().access(inside.thread(), to, size, size, Access::write);
  std::memcpy(to, from, size);
}

void check_atomic(const void* address, std::size_t size) {
  const Block::Inside inside;
  Block::instance().access(inside.thread(), address, size, size, Access::atomic);
}

void move_unchecked(void* to, const void* from, std::size_t size) {
  const Block::Inside inside;
  std::memcpy(to, from, size);
}

void* dynamic_shared_memory() {
  return Block::instance().dynamic_memory();
}

void async_copy(void* shared, const void* global) {
  const Block::Inside inside;
  Block& b = Block::instance();
  Thread& t = inside.thread();
  if (!Memory::instance().is_shared(shared, 16)) {
    b.fail(t, "cp.async to memory that is not shared");
  }
  b.access(t, shared, 16, 16, Access::write);
  if (global != nullptr) b.access(t, global, 16, 16, Access::read);
  Memory::instance().set_pending(shared, 16, true);
  t.open_copies.push_back({shared, global});
}

void async_commit() {
  const Block::Inside inside;
  Thread& t = inside.thread();
  t.copy_groups.push_back(std::exchange(t.open_copies, {}));
}

void async_wait(int pending) {
  const Block::Inside inside;
  Thread& t = inside.thread();
  while (t.copy_groups.size() > static_cast<std::size_t>(pending)) {
    for (const AsyncCopy& c : t.copy_groups.front()) {
      Memory::instance().set_pending(c.shared, 16, false);
      Block::instance().access(t, c.shared, 16, 16, Access::write);
      if (c.global == nullptr) {
        std::memset(c.shared, 0, 16);
      } else {
        std::memcpy(c.shared, c.global, 16);
      }
    }
    t.copy_groups.pop_front();
  }
}

namespace {
float widened(HalfType type, std::uint32_t word, int half) {
  const auto bits = static_cast<std::uint16_t>(half == 0 ? word : word >> 16);
  if (type == HalfType::f16) return static_cast<float>(std::bit_cast<Float16>(bits));
  return static_cast<float>(std::bit_cast<BFloat16>(bits));
}

struct ProductOperand {
  HalfType type;
  int depth;
  float* c;
  const std::uint32_t *a, *b;
};

void multiply(Block&, unsigned, const Operands& o) {
  float a[16][16] = {}, b[16][8] = {};
  int depth = 0;
  for_each<ProductOperand>(o, [&](unsigned lane, const ProductOperand& p) {
    const unsigned g = lane / 4, t = lane % 4;
    depth = p.depth;
    for (unsigned half = 0; half < 2; ++half) {
      const auto h = static_cast<int>(half);
      for (unsigned block = 0; block < static_cast<unsigned>(p.depth) / 8; ++block) {
        const unsigned k = 8 * block + 2 * t + half;
        a[g][k] = widened(p.type, p.a[2 * block], h);
        a[g + 8][k] = widened(p.type, p.a[2 * block + 1], h);
        b[k][g] = widened(p.type, p.b[block], h);
      }
    }
  });
  for_each<ProductOperand>(o, [&](unsigned lane, const ProductOperand& p) {
    for (unsigned i = 0; i < 4; ++i) {
      const unsigned row = lane / 4 + (i < 2 ? 0 : 8), column = 2 * (lane % 4) + i % 2;
      double sum = static_cast<double>(p.c[i]);
      for (int k = 0; k < depth; ++k) {
        sum += static_cast<double>(a[row][k]) * static_cast<double>(b[k][column]);
      }
      p.c[i] = static_cast<float>(sum);
    }
  });
}

struct MatrixOperand {
  int count;
  bool transposed;
  std::uint32_t* registers;
  const void* row;
};

void read_matrices(Block& block, unsigned warp, const Operands& o) {
  const int count = static_cast<const MatrixOperand*>(o[0])->count;
  for (unsigned m = 0; m < static_cast<unsigned>(count); ++m) {
    std::uint16_t matrix[8][8];
    for (unsigned r = 0; r < 8; ++r) {
      const void* row = static_cast<const MatrixOperand*>(o[8 * m + r])->row;
      Thread& owner = block.thread_of(warp, 8 * m + r);
      if (!Memory::instance().is_shared(row, 16)) {
        block.fail(owner, fmt::format("ldmatrix reads 16 bytes at {}, which are not shared memory",
                                      Memory::instance().describe(row)));
      }
      block.access(owner, row, 16, 16, Access::read);
      std::memcpy(matrix[r], row, 16);
    }
    for_each<MatrixOperand>(o, [&](unsigned lane, const MatrixOperand& p) {
      const unsigned g = lane / 4, t = 2 * (lane % 4);
      const std::uint32_t low = p.transposed ? matrix[t][g] : matrix[g][t];
      const std::uint32_t high = p.transposed ? matrix[t + 1][g] : matrix[g][t + 1];
      p.registers[m] = low | high << 16;
    });
  }
}
}  // namespace

void multiply_fragments(HalfType type, int depth, float* c, const std::uint32_t* a,
                        const std::uint32_t* b, Site site) {
  ProductOperand own{type, depth, c, a, b};
  const Block::Inside inside;
  if (type == HalfType::bf16 && architecture_in_use < 80) {
    Block::instance().fail(inside.thread(),
                           fmt::format("sm_{} has no bf16 products", architecture_in_use));
  }
  Block::instance().warp_operation(inside.thread(), "mma", kWholeWarp, site, &own, multiply);
}

void load_matrices(int count, bool transposed, std::uint32_t* registers, const void* row,
                   Site site) {
  MatrixOperand own{count, transposed, registers, row};
  const Block::Inside inside;
  Block::instance().warp_operation(inside.thread(), "ldmatrix", kWholeWarp, site, &own,
                                   read_matrices);
}

}  // namespace medvqa::emulation
