// Streams a checkpoint in the Hub's layout, so that its size is bounded by the disk, not memory.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "medvqa/io/safetensors.h"

namespace medvqa::io {

inline constexpr std::uint64_t kMaxShardBytes = 5'000'000'000;

// model.safetensors, or model-00001-of-0000N.safetensors with the index if the tensors exceed
// `max_shard_bytes`. Tensors fill the shards in the order given; write() takes them in any order.
// The folder must exist; use AtomicFolder::aside() for one that appears whole.
class CheckpointWriter {
 public:
  CheckpointWriter(const std::filesystem::path& folder, std::vector<TensorSpec> tensors,
                   std::uint64_t max_shard_bytes = kMaxShardBytes);

  // Appends to what was written of this tensor so far.
  void write(const std::string& name, std::span<const std::byte> bytes);
  // InternalError if a tensor is missing bytes.
  void commit();

 private:
  std::filesystem::path folder_;
  std::vector<std::string> shard_names_;
  std::vector<std::unique_ptr<SafetensorsWriter>> shards_;
  std::map<std::string, std::size_t> shard_of_;
  std::uint64_t total_bytes_ = 0;
};

// The tensors of a 4-bit linear NAME [out, in] as bitsandbytes names them (weight, absmax,
// quant_map, nested_absmax, nested_quant_map, quant_state), appended to `tensors`.
struct Nf4Layout {
  std::int64_t out = 0;
  std::int64_t in = 0;
  DType dtype = DType::bf16;  // of the weight when it was quantised
  std::int64_t block_size = 64;
  std::int64_t nested_block_size = 256;
  bool nested = true;
};
void append_nf4_specs(std::vector<TensorSpec>& tensors, const std::string& name,
                      const Nf4Layout& layout);

struct Nf4Parts {
  std::span<const std::uint8_t> packed;
  std::span<const float> code;           // [16]
  std::span<const float> absmax;         // plain only
  std::span<const std::uint8_t> codes;   // nested only: 8-bit absmax
  std::span<const float> nested_absmax;  // nested only
  std::span<const float> nested_map;     // nested only, [256]
  float nested_offset = 0;
};
void write_nf4(CheckpointWriter& writer, const std::string& name, const Nf4Layout& layout,
               const Nf4Parts& parts);

}  // namespace medvqa::io
