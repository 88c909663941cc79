#include "medvqa/train/available_memory.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

namespace medvqa::train {

namespace {

namespace fs = std::filesystem;

// Not measured on a device yet: cuBLASLt's kernels are loaded when a product first needs them.
constexpr std::size_t kLoadedLater = std::size_t{256} << 20;
constexpr std::size_t kUnknown = std::numeric_limits<std::size_t>::max();

// The number after `key` in lines "key number ..."; with an empty key the file's first word.
std::size_t number_in(const fs::path& file, const std::string& key) {
  std::ifstream stream(file);
  std::string word;
  std::size_t value = 0;
  while (key.empty() || stream >> word) {
    if ((key.empty() || word == key) && stream >> value) return value;
    if (key.empty()) return kUnknown;
    stream.clear();
    stream.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  return kUnknown;
}

// The files' names in the two versions.
struct GroupFiles {
  const char *limit, *used, *droppable;
};
constexpr GroupFiles kVersion1{"memory.limit_in_bytes", "memory.usage_in_bytes",
                               "total_inactive_file"};
constexpr GroupFiles kVersion2{"memory.max", "memory.current", "inactive_file"};

// What one group leaves; kUnknown without a limit.
std::size_t left_in(const fs::path& group, const GroupFiles& files) {
  const std::size_t limit = number_in(group / files.limit, "");
  const std::size_t used = number_in(group / files.used, "");
  if (limit == kUnknown || used == kUnknown) return kUnknown;
  const std::size_t cached = number_in(group / "memory.stat", files.droppable);
  const std::size_t taken = used - std::min(used, cached == kUnknown ? 0 : cached);
  return limit - std::min(limit, taken);
}

// The least that a group and those it lies in leave. A path that begins with ".." or is not there,
// as inside a container, leaves the group at the mount itself.
std::size_t left_up_to(const fs::path& mount, const fs::path& path, const GroupFiles& files) {
  std::size_t left = left_in(mount, files);
  for (fs::path at = path.relative_path(); !at.empty(); at = at.parent_path()) {
    left = std::min(left, left_in(mount / at, files));
  }
  return left;
}

// Lines "hierarchy:controllers:path" of /proc/self/cgroup.
std::size_t left_in_groups(const fs::path& root) {
  std::ifstream file(root / "proc/self/cgroup");
  std::size_t left = kUnknown;
  std::string line;
  while (std::getline(file, line)) {
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const fs::path path = line.substr(second + 1);
    const fs::path mount = root / "sys/fs/cgroup";
    if (controllers == ",,") left = std::min(left, left_up_to(mount, path, kVersion2));
    if (controllers.find(",memory,") != std::string::npos) {
      left = std::min(left, left_up_to(mount / "memory", path, kVersion1));
    }
  }
  return left;
}

}  // namespace

std::size_t available_memory(const fs::path& root) {
  const std::size_t kib = number_in(root / "proc/meminfo", "MemAvailable:");
  const std::size_t system = kib == kUnknown ? kUnknown : kib * 1024;
  return std::min(system, left_in_groups(root));
}

std::size_t available_memory(const ops::Backend& backend) {
  const std::optional<std::size_t> own = backend.free_memory();
  return own ? *own : available_memory();
}

std::string memory_owner(const ops::Backend& backend) {
  return backend.free_memory() ? backend.traits().name : "the machine";
}

std::size_t usable_memory(const ops::Backend& backend) {
  const std::size_t available = available_memory(backend);
  if (!backend.free_memory()) return available / 5 * 4;
  return available - std::min(available, kLoadedLater);
}

}  // namespace medvqa::train
