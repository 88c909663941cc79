#include "medvqa/train/event_log.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cstring>

#include "medvqa/core/error.h"

namespace medvqa::train {

namespace {

constexpr const char* kPrefix = "events.out.tfevents.";

constexpr std::array<std::uint32_t, 256> make_table() {
  constexpr std::uint32_t kPolynomial = 0x82f63b78u;  // reflected
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < table.size(); ++i) {
    std::uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = (c & 1u) != 0 ? c >> 1 ^ kPolynomial : c >> 1;
    table[i] = c;
  }
  return table;
}
constexpr std::array<std::uint32_t, 256> kTable = make_table();

// A checksum of data that holds checksums is weak; the mask mends that.
std::uint32_t masked(std::uint32_t crc) {
  return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

template <class T>
void put_fixed(std::string& out, T value) {
  for (std::size_t i = 0; i < sizeof(T); ++i) {
    out += static_cast<char>(value >> (8 * i) & 0xffu);
  }
}

void put_varint(std::string& out, std::uint64_t value) {
  for (; value >= 0x80u; value >>= 7) out += static_cast<char>((value & 0x7fu) | 0x80u);
  out += static_cast<char>(value);
}

// Wire types of protocol buffers.
enum class Wire : std::uint8_t { varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 };

void put_key(std::string& out, unsigned field, Wire wire) {
  put_varint(out, field << 3 | static_cast<unsigned>(wire));
}

void put_bytes(std::string& out, unsigned field, std::string_view bytes) {
  put_key(out, field, Wire::bytes);
  put_varint(out, bytes.size());
  out += bytes;
}

std::string event_begin(double wall_time, std::int64_t step) {
  std::string out;
  std::uint64_t bits = 0;
  std::memcpy(&bits, &wall_time, sizeof(bits));
  put_key(out, 1, Wire::fixed64);
  put_fixed(out, bits);
  if (step != 0) {
    put_key(out, 2, Wire::varint);
    put_varint(out, static_cast<std::uint64_t>(step));
  }
  return out;
}

double now() {
  const auto since = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration<double>(since).count();
}

// The time in the name of the newest event file, or 0.
std::int64_t newest(const std::filesystem::path& folder) {
  std::int64_t last = 0;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(folder, none)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(kPrefix)) continue;
    std::int64_t time = 0;
    std::from_chars(name.data() + std::strlen(kPrefix), name.data() + name.size(), time);
    last = std::max(last, time);
  }
  return last;
}

std::string host_name() {
  std::array<char, 256> name{};
  if (gethostname(name.data(), name.size() - 1) != 0 || name[0] == '\0') return "localhost";
  return name.data();
}

}  // namespace

std::uint32_t crc32c(std::string_view bytes) {
  std::uint32_t c = 0xffffffffu;
  for (const char b : bytes) c = c >> 8 ^ kTable[(c ^ static_cast<unsigned char>(b)) & 0xffu];
  return c ^ 0xffffffffu;
}

std::string event_record(std::string_view payload) {
  std::string out;
  put_fixed(out, static_cast<std::uint64_t>(payload.size()));
  put_fixed(out, masked(crc32c(out)));
  out += payload;
  put_fixed(out, masked(crc32c(payload)));
  return out;
}

std::string version_event(double wall_time) {
  std::string event = event_begin(wall_time, 0);
  put_bytes(event, 3, "brain.Event:2");
  return event;
}

std::string restart_event(double wall_time, std::int64_t step) {
  std::string start;
  put_key(start, 1, Wire::varint);
  put_varint(start, 1);  // SessionLog.START
  std::string event = event_begin(wall_time, step);
  put_bytes(event, 7, start);
  return event;
}

std::string scalar_event(double wall_time, std::int64_t step, const std::vector<Scalar>& scalars) {
  std::string summary;
  for (const Scalar& s : scalars) {
    std::string value;
    put_bytes(value, 1, s.tag);
    const auto narrow = static_cast<float>(s.value);
    std::uint32_t bits = 0;
    std::memcpy(&bits, &narrow, sizeof(bits));
    put_key(value, 2, Wire::fixed32);
    put_fixed(value, bits);
    put_bytes(summary, 1, value);
  }
  std::string event = event_begin(wall_time, step);
  put_bytes(event, 5, summary);
  return event;
}

EventLog::EventLog(const std::filesystem::path& folder, std::int64_t first_step) {
  const double begin = now();
  const std::int64_t time = std::max(static_cast<std::int64_t>(begin), newest(folder) + 1);
  path_ = folder / fmt::format("{}{:010}.{}.{}", kPrefix, time, host_name(), getpid());
  file_.open(path_, std::ios::binary);
  write(version_event(begin));
  if (first_step > 1) write(restart_event(begin, first_step));
}

void EventLog::add(std::int64_t step, const std::vector<Scalar>& scalars) {
  write(scalar_event(now(), step, scalars));
}

void EventLog::write(const std::string& event) {
  const std::string record = event_record(event);
  file_.write(record.data(), static_cast<std::streamsize>(record.size()));
  file_.flush();
  if (file_) return;
  throw UserError(ExitCode::io, fmt::format("cannot write {}; is the disk full? The last "
                                            "checkpoint is whole: go on with --resume auto",
                                            path_.string()));
}

}  // namespace medvqa::train
