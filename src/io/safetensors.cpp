#include "medvqa/io/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "medvqa/io/json.h"

namespace medvqa::io {
namespace {

constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;

struct KnownType {
  const char* name;
  std::uint64_t bits;
  std::optional<DType> dtype;
};

// Every type of the format, so that a file with tensors nobody asks for can be checked and used.
constexpr std::nullopt_t kNone = std::nullopt;
const KnownType kTypes[] = {
    {"F64", 64, DType::f64}, {"I64", 64, DType::i64},   {"F32", 32, DType::f32},
    {"I32", 32, DType::i32}, {"BF16", 16, DType::bf16}, {"F16", 16, DType::f16},
    {"U8", 8, DType::u8},    {"U64", 64, kNone},        {"C64", 64, kNone},
    {"U32", 32, kNone},      {"I16", 16, kNone},        {"U16", 16, kNone},
    {"BOOL", 8, kNone},      {"I8", 8, kNone},          {"F8_E4M3", 8, kNone},
    {"F8_E5M2", 8, kNone},   {"F8_E8M0", 8, kNone},     {"F6_E2M3", 6, kNone},
    {"F6_E3M2", 6, kNone},   {"F4", 4, kNone}};

const KnownType* find_type(const std::string& name) {
  for (const KnownType& type : kTypes) {
    if (name == type.name) return &type;
  }
  return nullptr;
}

// Bytes of a tensor, or nothing if the product overflows or ends within a byte.
std::optional<std::uint64_t> checked_bytes(const std::vector<std::int64_t>& shape,
                                           std::uint64_t bits) {
  std::uint64_t total = bits;
  for (const std::int64_t dim : shape) {
    if (dim < 0) return std::nullopt;
    if (__builtin_mul_overflow(total, static_cast<std::uint64_t>(dim), &total)) return std::nullopt;
  }
  if (total % 8 != 0) return std::nullopt;
  return total / 8;
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

}  // namespace

std::string safetensors_name(DType dtype) {
  for (const KnownType& type : kTypes) {
    if (type.dtype == dtype) return type.name;
  }
  MEDVQA_CHECK(false, "a DType without a safetensors name");
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path, ExitCode code)
    : file_(path, code), code_(code) {
  read_header();
  check_layout();
}

void SafetensorsFile::fail(const std::string& message) const {
  throw UserError(code_, fmt::format("{}: {}", file_.path().string(), message));
}

void SafetensorsFile::read_header() {
  const std::string_view text = file_.text();
  if (text.size() < 8) {
    fail(fmt::format("not a safetensors file: {} bytes; download it again", text.size()));
  }
  std::uint64_t length = 0;
  for (std::size_t i = 0; i < 8; ++i) {
    length |= std::uint64_t{static_cast<unsigned char>(text[i])} << (8 * i);
  }
  if (length > kMaxHeaderBytes) {
    fail(fmt::format("not a safetensors file: header of {} bytes, at most {} are allowed", length,
                     kMaxHeaderBytes));
  }
  if (length > text.size() - 8) {
    fail(fmt::format("truncated: the header has {} bytes, the file {}; download it again", length,
                     text.size()));
  }
  const std::string_view header = text.substr(8, length);
  if (header.empty() || header.front() != '{') {
    fail("not a safetensors file: the header does not begin with '{'");
  }
  data_begin_ = 8 + length;
  const std::string where = fmt::format("{}: header", file_.path().string());
  const nlohmann::json root = parse_json(header, where, {code_, false, 8});
  for (const auto& item : root.items()) {
    if (item.key() != "__metadata__") {
      read_entry(item.key(), item.value());
      continue;
    }
    const JsonObject object(item.value(), where + ": __metadata__", code_);
    for (const auto& pair : item.value().items()) {
      metadata_[pair.key()] = object.string(pair.key().c_str());
    }
  }
}

void SafetensorsFile::read_entry(const std::string& name, const nlohmann::json& value) {
  const std::string where = fmt::format("{}: tensor \"{}\"", file_.path().string(), name);
  const JsonObject object(value, where, code_);
  TensorEntry entry;
  entry.dtype = object.string("dtype");
  const KnownType* type = find_type(entry.dtype);
  if (type == nullptr) object.fail(fmt::format("unknown dtype \"{}\"", entry.dtype));
  entry.shape = object.integers("shape", 64);
  const std::vector<std::int64_t> offsets = object.integers("data_offsets", 2);
  if (offsets.size() != 2 || offsets[0] < 0 || offsets[1] < offsets[0]) {
    object.fail(fmt::format("data_offsets {} are not begin and end", shape_text(offsets)));
  }
  entry.begin = static_cast<std::uint64_t>(offsets[0]);
  entry.end = static_cast<std::uint64_t>(offsets[1]);
  const std::optional<std::uint64_t> bytes = checked_bytes(entry.shape, type->bits);
  if (!bytes) {
    object.fail(fmt::format("impossible shape {} of {}", shape_text(entry.shape), entry.dtype));
  }
  if (*bytes != entry.end - entry.begin) {
    object.fail(fmt::format("{} {} takes {} bytes, data_offsets give {}", entry.dtype,
                            shape_text(entry.shape), *bytes, entry.end - entry.begin));
  }
  entries_.emplace(name, std::move(entry));
}

void SafetensorsFile::check_layout() const {
  std::vector<std::pair<const TensorEntry*, const std::string*>> order;
  for (const auto& item : entries_) order.emplace_back(&item.second, &item.first);
  std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return std::pair(a.first->begin, a.first->end) < std::pair(b.first->begin, b.first->end);
  });
  std::uint64_t expected = 0;
  for (const auto& item : order) {
    if (item.first->begin != expected) {
      fail(fmt::format("tensor \"{}\" begins at byte {}, expected {}: {} tensors", *item.second,
                       item.first->begin, expected,
                       item.first->begin < expected ? "overlapping" : "a hole between"));
    }
    expected = item.first->end;
  }
  const std::uint64_t present = file_.bytes().size() - data_begin_;
  if (present < expected) {
    fail(fmt::format("truncated: tensors take {} bytes, {} are there; download it again", expected,
                     present));
  }
  if (present > expected) {
    fail(fmt::format("{} bytes follow the last tensor, expected none", present - expected));
  }
}

const TensorEntry& SafetensorsFile::entry(const std::string& name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) fail(fmt::format("tensor \"{}\" is missing", name));
  return found->second;
}

nn::HostTensor SafetensorsFile::tensor(const std::string& name) const {
  const TensorEntry& found = entry(name);
  const std::optional<DType> dtype = find_type(found.dtype)->dtype;
  if (!dtype) {
    fail(fmt::format("tensor \"{}\" is {}; expected F64, F32, F16, BF16, I64, I32 or U8", name,
                     found.dtype));
  }
  return {*dtype, found.shape, raw(name)};
}

std::span<const std::byte> SafetensorsFile::raw(const std::string& name) const {
  const TensorEntry& found = entry(name);
  return file_.bytes().subspan(data_begin_ + found.begin, found.end - found.begin);
}

std::uint64_t TensorSpec::bytes() const {
  const auto total = checked_bytes(shape, 8 * size_of(dtype));
  MEDVQA_CHECK(total.has_value(), "impossible shape of " + name);
  return *total;
}

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path,
                                     std::vector<TensorSpec> tensors,
                                     const std::map<std::string, std::string>& metadata)
    : file_(path) {
  std::sort(tensors.begin(), tensors.end(), [](const TensorSpec& a, const TensorSpec& b) {
    const std::size_t size_a = size_of(a.dtype);
    const std::size_t size_b = size_of(b.dtype);
    return size_a != size_b ? size_a > size_b : a.name < b.name;
  });
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::uint64_t offset = 0;
  for (const TensorSpec& tensor : tensors) {
    const Slot slot{offset, offset + tensor.bytes()};
    MEDVQA_CHECK(slots_.emplace(tensor.name, slot).second, "twice in one file: " + tensor.name);
    header[tensor.name] = {{"dtype", safetensors_name(tensor.dtype)},
                           {"shape", tensor.shape},
                           {"data_offsets", {slot.next, slot.end}}};
    offset = slot.end;
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  std::string length(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) {
    length[i] = static_cast<char>(static_cast<unsigned char>(text.size() >> (8 * i)));
  }
  const std::uint64_t data_begin = 8 + text.size();
  file_.reserve(data_begin + offset);
  file_.append(bytes_of(length));
  file_.append(bytes_of(text));
  for (auto& item : slots_) {
    item.second.next += data_begin;
    item.second.end += data_begin;
  }
}

void SafetensorsWriter::write(const std::string& name, std::span<const std::byte> bytes) {
  const auto found = slots_.find(name);
  MEDVQA_CHECK(found != slots_.end(), "not announced: " + name);
  Slot& slot = found->second;
  MEDVQA_CHECK(bytes.size() <= slot.end - slot.next, "more bytes than announced: " + name);
  file_.write_at(slot.next, bytes);
  slot.next += bytes.size();
}

void SafetensorsWriter::commit() {
  for (const auto& item : slots_) {
    MEDVQA_CHECK(item.second.next == item.second.end, "not written in full: " + item.first);
  }
  file_.commit();
}

void write_safetensors(const std::filesystem::path& path, const std::vector<TensorSpec>& tensors,
                       const std::vector<std::span<const std::byte>>& bytes,
                       const std::map<std::string, std::string>& metadata) {
  MEDVQA_CHECK(tensors.size() == bytes.size(), "as many byte ranges as tensors");
  SafetensorsWriter writer(path, tensors, metadata);
  for (std::size_t i = 0; i < tensors.size(); ++i) writer.write(tensors[i].name, bytes[i]);
  writer.commit();
}

}  // namespace medvqa::io
