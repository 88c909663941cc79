#include "tests/support/placement.h"

#include <fmt/format.h>

#include <cstring>

namespace medvqa::testing {

namespace {

constexpr std::int64_t kGuard = 256;
constexpr auto kSentinel = std::byte{0xA5};
constexpr auto kUnwritten = std::byte{0xFF};  // NaN in every floating type

template <class T>
void store(std::byte* to, T value) {
  std::memcpy(to, &value, sizeof(T));
}

template <class T>
T fetch(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

void store_as(std::byte* to, double value, DType type) {
  switch (type) {
    case DType::f64:
      return store(to, value);
    case DType::f32:
      return store(to, static_cast<float>(value));
    case DType::bf16:
      return store(to, BFloat16(static_cast<float>(value)));
    case DType::f16:
      return store(to, Float16(static_cast<float>(value)));
    case DType::i64:
      return store(to, static_cast<std::int64_t>(value));
    case DType::i32:
      return store(to, static_cast<std::int32_t>(value));
    case DType::u8:
      return store(to, static_cast<std::uint8_t>(value));
  }
}

double fetch_as(const std::byte* from, DType type) {
  switch (type) {
    case DType::f64:
      return fetch<double>(from);
    case DType::f32:
      return static_cast<double>(fetch<float>(from));
    case DType::bf16:
      return static_cast<double>(fetch<BFloat16>(from));
    case DType::f16:
      return static_cast<double>(fetch<Float16>(from));
    case DType::i64:
      return static_cast<double>(fetch<std::int64_t>(from));
    case DType::i32:
      return fetch<std::int32_t>(from);
    case DType::u8:
      return fetch<std::uint8_t>(from);
  }
  return 0;
}

}  // namespace

std::int64_t Placement::element_byte(std::size_t operand, std::int64_t element) const {
  const Operand& o = case_.operands[operand];
  const Tensor& t = tensors_[operand];
  const std::int64_t columns = t.row_elements();
  const std::int64_t index = o.lead + element / columns * t.row_stride + element % columns;
  return kGuard + index * static_cast<std::int64_t>(size_of(t.dtype));
}

Placement::Placement(const OpCase& c, DType compute, const Values& values)
    : Placement({"cpu", shared_cpu_backend(), {}}, c, compute, values) {}

Placement::Placement(const TestedBackend& tested, const OpCase& c, DType compute,
                     const Values& values)
    : backend_(*tested.backend), case_(c), compute_(compute) {
  for (std::size_t i = 0; i < c.operands.size(); ++i) {
    const Operand& o = c.operands[i];
    Tensor t(nullptr, o.type.in(compute), o.shape);
    const std::int64_t rows = o.shape.dim(0);
    t.row_stride += o.lead + o.trail;
    const auto size = static_cast<std::int64_t>(size_of(t.dtype));
    Slot slot;
    slot.image.assign(at(2 * kGuard + rows * t.row_stride * size), kSentinel);
    slot.writable.assign(slot.image.size(), false);
    slot.element.assign(slot.image.size(), false);
    tensors_.push_back(t);
    const bool unset = o.role == Role::output || o.role == Role::spare;
    for (std::int64_t e = 0; e < o.shape.elements(); ++e) {
      const auto begin = at(element_byte(i, e));
      for (std::size_t b = begin; b < begin + at(size); ++b) {
        if (unset) slot.image[b] = kUnwritten;
        slot.writable[b] = o.role != Role::input;
        slot.element[b] = true;
      }
      if (!unset) store_as(&slot.image[begin], values[i][at(e)], t.dtype);
    }
    slot.memory = backend_.allocate_memory(slot.image.size());
    const Tensor all(slot.memory.get(), DType::u8, {static_cast<std::int64_t>(slot.image.size())});
    backend_.upload(slot.image.data(), slot.image.size(), all);
    tensors_.back().data = static_cast<std::byte*>(slot.memory.get()) + kGuard + o.lead * size;
    watch(tested, slot, o);
    slots_.push_back(std::move(slot));
  }
}

void Placement::watch(const TestedBackend& tested, const Slot& slot, const Operand& operand) const {
  if (!tested.forbid) return;
  const auto* memory = static_cast<const std::byte*>(slot.memory.get());
  tested.name_range(memory + kGuard, slot.image.size() - at(2 * kGuard), operand.name);
  for (std::size_t begin = 0, end = 0; begin < slot.image.size(); begin = end) {
    while (end < slot.image.size() && slot.element[end] == slot.element[begin]) ++end;
    if (!slot.element[begin]) tested.forbid(memory + begin, end - begin);
  }
}

Tensors Placement::described() const {
  Tensors t = tensors_;
  for (Tensor& tensor : t) tensor.data = nullptr;
  return t;
}

std::vector<std::byte> Placement::now(const Slot& slot) const {
  std::vector<std::byte> bytes(slot.image.size());
  const Tensor all(slot.memory.get(), DType::u8, {static_cast<std::int64_t>(bytes.size())});
  backend_.download(all, bytes.data(), bytes.size());
  return bytes;
}

std::vector<double> Placement::read(int operand) const {
  const auto i = static_cast<std::size_t>(operand);
  const std::vector<std::byte> bytes = now(slots_[i]);
  std::vector<double> values;
  for (std::int64_t e = 0; e < tensors_[i].elements(); ++e) {
    values.push_back(fetch_as(&bytes[at(element_byte(i, e))], tensors_[i].dtype));
  }
  return values;
}

std::vector<std::string> Placement::damage() const {
  std::vector<std::string> found;
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    const std::vector<std::byte> bytes = now(slots_[i]);
    for (std::size_t b = 0; b < bytes.size(); ++b) {
      if (slots_[i].writable[b] || bytes[b] == slots_[i].image[b]) continue;
      found.push_back(fmt::format("{} of {} {}: byte {} changed though nobody may write it",
                                  case_.name, name_of(compute_), case_.operands[i].name,
                                  static_cast<std::int64_t>(b) - kGuard));
      break;
    }
  }
  return found;
}

}  // namespace medvqa::testing
