// TensorBoard's event files, scalars only: records of protocol buffers, each between checksums.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

namespace medvqa::train {

// Castagnoli's CRC, as in iSCSI.
std::uint32_t crc32c(std::string_view bytes);

// u64 length, u32 masked checksum of it, payload, u32 masked checksum of that; little endian.
std::string event_record(std::string_view payload);

// tensorflow.Event messages.
std::string version_event(double wall_time);
// Tells TensorBoard to forget what it has from `step` on: a resumed run repeats those.
std::string restart_event(double wall_time, std::int64_t step);

struct Scalar {
  std::string tag;
  double value = 0;
};
std::string scalar_event(double wall_time, std::int64_t step, const std::vector<Scalar>& scalars);

class EventLog {
 public:
  // Makes events.out.tfevents.<time>.<host>.<pid> in `folder`, named to sort behind those that are
  // there. UserError(ExitCode::io) if it cannot be written. `first_step`: the next one to come.
  EventLog(const std::filesystem::path& folder, std::int64_t first_step);

  // One event at the present time, on disk when this returns.
  void add(std::int64_t step, const std::vector<Scalar>& scalars);
  const std::filesystem::path& path() const { return path_; }

 private:
  void write(const std::string& event);

  std::filesystem::path path_;
  std::ofstream file_;
};

}  // namespace medvqa::train
