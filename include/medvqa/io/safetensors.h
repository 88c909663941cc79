// Reader and writer of safetensors: u64 header length, JSON header, tensor bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "medvqa/core/dtype.h"
#include "medvqa/core/error.h"
#include "medvqa/io/file.h"
#include "medvqa/nn/weights.h"

namespace medvqa::io {

// "F32" and so on; UserError names types this program does not compute with (I8, F8_E4M3, BOOL...).
std::string safetensors_name(DType dtype);

struct TensorEntry {
  std::string dtype;  // as in the file
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0;  // bytes, from the end of the header
  std::uint64_t end = 0;
};

// Maps a file and checks all of it before handing out anything: header length, UTF-8, no duplicate
// names, known types, shape x type without overflow, tensors that cover the file without hole or
// overlap. UserError(code) names file and tensor. Bytes may be unaligned in a foreign file.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path, ExitCode code = ExitCode::model);

  const std::map<std::string, TensorEntry>& entries() const { return entries_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  bool contains(const std::string& name) const { return entries_.contains(name); }
  // UserError(code) if it is missing or of a type that DType lacks.
  nn::HostTensor tensor(const std::string& name) const;
  // The same for any type.
  std::span<const std::byte> raw(const std::string& name) const;
  const std::filesystem::path& path() const { return file_.path(); }

 private:
  [[noreturn]] void fail(const std::string& message) const;
  void read_header();
  void read_entry(const std::string& name, const nlohmann::json& value);
  void check_layout() const;
  const TensorEntry& entry(const std::string& name) const;

  MappedFile file_;
  ExitCode code_;
  std::size_t data_begin_ = 0;
  std::map<std::string, TensorEntry> entries_;
  std::map<std::string, std::string> metadata_;
};

struct TensorSpec {
  std::string name;
  DType dtype = DType::f32;
  std::vector<std::int64_t> shape;
  std::uint64_t bytes() const;
};

// Streams one file: the header is written first, then the tensors in any order, each once, whole
// or in pieces. Tensors lie by falling element size, then by name, so all are aligned.
class SafetensorsWriter {
 public:
  SafetensorsWriter(const std::filesystem::path& path, std::vector<TensorSpec> tensors,
                    const std::map<std::string, std::string>& metadata);

  // Appends to what was written of this tensor so far.
  void write(const std::string& name, std::span<const std::byte> bytes);
  // InternalError if a tensor is missing bytes.
  void commit();

 private:
  struct Slot {
    std::uint64_t next = 0;
    std::uint64_t end = 0;
  };
  AtomicFile file_;
  std::map<std::string, Slot> slots_;
};

// All at once; `bytes[i]` belongs to `tensors[i]`.
void write_safetensors(const std::filesystem::path& path, const std::vector<TensorSpec>& tensors,
                       const std::vector<std::span<const std::byte>>& bytes,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace medvqa::io
