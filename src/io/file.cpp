#include "medvqa/io/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <system_error>
#include <utility>
#include <vector>

namespace medvqa::io {
namespace fs = std::filesystem;
namespace {

[[noreturn]] void fail_with_errno(ExitCode code, const std::string& action, const fs::path& path) {
  const std::string reason = std::generic_category().message(errno);
  throw UserError(code, fmt::format("cannot {} {}: {}", action, path.string(), reason));
}

[[noreturn]] void fail_with(const std::string& action, const fs::path& path,
                            const std::error_code& error) {
  throw UserError(ExitCode::io,
                  fmt::format("cannot {} {}: {}", action, path.string(), error.message()));
}

class Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {}
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return value_; }

 private:
  int value_;
};

void sync_path(const fs::path& path, int flags) {
  const Descriptor descriptor(::open(path.c_str(), flags | O_CLOEXEC));
  if (descriptor.get() < 0) fail_with_errno(ExitCode::io, "open", path);
  if (::fsync(descriptor.get()) != 0) fail_with_errno(ExitCode::io, "flush", path);
}

fs::path folder_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

// "runs/x/" names the folder runs/x.
fs::path without_trailing_slash(fs::path path) {
  return path.has_filename() ? path : path.parent_path();
}

fs::path aside_of(const fs::path& path) {
  const std::string name = fmt::format(".tmp-{}-{}", path.filename().string(), ::getpid());
  return folder_of(path) / name;
}

void make_folders(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) fail_with("make the folder", folder, error);
}

}  // namespace

MappedFile::MappedFile(fs::path path, ExitCode code) : path_(std::move(path)) {
  const Descriptor descriptor(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
  if (descriptor.get() < 0) fail_with_errno(code, "open", path_);
  struct stat status {};
  if (::fstat(descriptor.get(), &status) != 0) fail_with_errno(code, "inspect", path_);
  if (!S_ISREG(status.st_mode)) {
    throw UserError(code, fmt::format("{} is not a regular file", path_.string()));
  }
  const auto size = static_cast<std::size_t>(status.st_size);
  if (size == 0) return;
  void* memory = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, descriptor.get(), 0);
  if (memory == MAP_FAILED) fail_with_errno(code, "map", path_);
  bytes_ = {static_cast<const std::byte*>(memory), size};
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), bytes_(std::exchange(other.bytes_, {})) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

std::string_view MappedFile::text() const {
  return {reinterpret_cast<const char*>(bytes_.data()), bytes_.size()};
}

std::string read_text_file(const fs::path& path, ExitCode code, std::uint64_t max_bytes) {
  const MappedFile file(path, code);
  if (file.bytes().size() > max_bytes) {
    throw UserError(code,
                    fmt::format("{} has {} bytes, more than the {} this kind of file may have",
                                path.string(), file.bytes().size(), max_bytes));
  }
  return std::string(file.text());
}

AtomicFile::AtomicFile(fs::path path) : path_(std::move(path)), aside_(aside_of(path_)) {
  make_folders(folder_of(path_));
  descriptor_ = ::open(aside_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (descriptor_ < 0) fail_with_errno(ExitCode::io, "write", path_);
}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(aside_.c_str());
}

void AtomicFile::append(std::span<const std::byte> bytes) {
  write_at(end_, bytes);
  end_ += bytes.size();
}

void AtomicFile::write_at(std::uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count =
        ::pwrite(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (count < 0) {
      if (errno == EINTR) continue;
      fail_with_errno(ExitCode::io, "write", path_);
    }
    bytes = bytes.subspan(static_cast<std::size_t>(count));
    offset += static_cast<std::uint64_t>(count);
  }
}

void AtomicFile::reserve(std::uint64_t size) {
  if (size == 0) return;
  const int error = ::posix_fallocate(descriptor_, 0, static_cast<off_t>(size));
  if (error == 0 || error == EOPNOTSUPP || error == EINVAL) return;
  errno = error;
  fail_with_errno(ExitCode::io, fmt::format("reserve {} bytes for", size), path_);
}

void AtomicFile::commit() {
  MEDVQA_CHECK(descriptor_ >= 0, "this file was committed before");
  if (::fsync(descriptor_) != 0) fail_with_errno(ExitCode::io, "flush", path_);
  if (::rename(aside_.c_str(), path_.c_str()) != 0) {
    fail_with_errno(ExitCode::io, "replace", path_);
  }
  const int descriptor = std::exchange(descriptor_, -1);
  if (::close(descriptor) != 0) fail_with_errno(ExitCode::io, "close", path_);
  sync_folder(folder_of(path_));
}

void write_file_atomically(const fs::path& path, std::span<const std::byte> bytes) {
  AtomicFile file(path);
  file.append(bytes);
  file.commit();
}

void write_file_atomically(const fs::path& path, std::string_view text) {
  write_file_atomically(path, bytes_of(text));
}

AtomicFolder::AtomicFolder(fs::path path)
    : path_(without_trailing_slash(std::move(path))), aside_(aside_of(path_)) {
  std::error_code error;
  fs::remove_all(aside_, error);
  make_folders(aside_);
}

AtomicFolder::~AtomicFolder() {
  std::error_code ignored;
  if (!committed_) fs::remove_all(aside_, ignored);
}

void AtomicFolder::write(const std::string& name, std::string_view text) {
  write_file_atomically(aside_ / name, text);
}

void AtomicFolder::copy_in(const fs::path& file) {
  const MappedFile source(file);
  write_file_atomically(aside_ / file.filename(), source.bytes());
}

void AtomicFolder::commit() {
  MEDVQA_CHECK(!committed_, "this folder was committed before");
  for (const auto& entry : fs::recursive_directory_iterator(aside_)) {
    if (entry.is_directory()) sync_path(entry.path(), O_RDONLY | O_DIRECTORY);
    if (entry.is_regular_file()) sync_path(entry.path(), O_RDONLY);
  }
  sync_folder(aside_);
  std::error_code error;
  const fs::path old =
      folder_of(path_) / fmt::format(".old-{}-{}", path_.filename().string(), ::getpid());
  const bool replaces = fs::exists(fs::symlink_status(path_));
  if (replaces) fs::rename(path_, old, error);
  if (error) fail_with("replace", path_, error);
  fs::rename(aside_, path_, error);
  if (error) {
    std::error_code ignored;
    if (replaces) fs::rename(old, path_, ignored);
    fail_with("rename the finished folder to", path_, error);
  }
  committed_ = true;
  sync_folder(folder_of(path_));
  if (replaces) fs::remove_all(old, error);
}

void remove_leftovers_of(const fs::path& folder) {
  const fs::path path = without_trailing_slash(folder);
  std::vector<fs::path> found;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(folder_of(path), none)) {
    const std::string name = entry.path().filename().string();
    // What was moved aside to be replaced is the only copy until the new folder is there.
    const bool replaced = fs::exists(path);
    for (const char* kind : {".tmp", ".old"}) {
      const std::string begin = fmt::format("{}-{}-", kind, path.filename().string());
      if (!name.starts_with(begin) || (kind[1] == 'o' && !replaced)) continue;
      int process = 0;
      const char* end = name.data() + name.size();
      const auto number = std::from_chars(name.data() + begin.size(), end, process);
      const bool whole = number.ec == std::errc{} && number.ptr == end && process > 0;
      if (whole && ::kill(process, 0) != 0 && errno == ESRCH) found.push_back(entry.path());
    }
  }
  for (const fs::path& path_left : found) fs::remove_all(path_left, none);
}

void sync_folder(const fs::path& folder) {
  sync_path(folder, O_RDONLY | O_DIRECTORY);
}

}  // namespace medvqa::io
