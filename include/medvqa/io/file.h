// Files that are read in place, and files that appear whole or not at all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "medvqa/core/error.h"

namespace medvqa::io {

// A regular file mapped read-only; empty files have empty bytes(). UserError(code) if it cannot be
// opened or is no regular file. The bytes stay valid, at the same address, until destruction, also
// after a move. A file that another process truncates meanwhile ends this one with SIGBUS.
class MappedFile {
 public:
  explicit MappedFile(std::filesystem::path path, ExitCode code = ExitCode::io);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  std::span<const std::byte> bytes() const { return bytes_; }
  std::string_view text() const;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  std::span<const std::byte> bytes_;
};

// UserError(code) if it is missing or larger than `max_bytes`.
std::string read_text_file(const std::filesystem::path& path, ExitCode code = ExitCode::io,
                           std::uint64_t max_bytes = std::uint64_t{1} << 30);

inline std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// Writes beside the target, as .tmp-NAME-PID; commit() makes it durable and renames it. Without
// commit() nothing remains. Every failure is a UserError(ExitCode::io) with path and reason, and
// the target is as it was before.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void append(std::span<const std::byte> bytes);
  // Does not move the place where append() continues.
  void write_at(std::uint64_t offset, std::span<const std::byte> bytes);
  // Makes sure now that the disk has room for `size` bytes.
  void reserve(std::uint64_t size);
  void commit();
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  std::filesystem::path aside_;
  int descriptor_ = -1;
  std::uint64_t end_ = 0;
};

void write_file_atomically(const std::filesystem::path& path, std::span<const std::byte> bytes);
void write_file_atomically(const std::filesystem::path& path, std::string_view text);

// A folder built as .tmp-NAME-PID beside the target. commit() makes every file durable and renames;
// a folder of that name that is already there is replaced. Without commit() nothing remains.
class AtomicFolder {
 public:
  explicit AtomicFolder(std::filesystem::path path);
  ~AtomicFolder();
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;

  // Where to write until commit().
  const std::filesystem::path& aside() const { return aside_; }
  const std::filesystem::path& path() const { return path_; }
  void write(const std::string& name, std::string_view text);
  // Copies a regular file of another folder under its own name, following links.
  void copy_in(const std::filesystem::path& file);
  void commit();

 private:
  std::filesystem::path path_;
  std::filesystem::path aside_;
  bool committed_ = false;
};

// Removes what AtomicFolders of this path left beside it in processes that were killed.
void remove_leftovers_of(const std::filesystem::path& folder);

// Makes a folder's entries durable, such as after a rename in it.
void sync_folder(const std::filesystem::path& folder);

}  // namespace medvqa::io
