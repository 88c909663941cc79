#include "medvqa/io/checkpoint_writer.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <utility>

namespace medvqa::io {
namespace {

// The state is JSON whose length depends on the offset, which is known only once the weight is
// quantised. JSON ends in any number of blanks, so every state has this length.
constexpr std::int64_t kStateBytes = 256;

std::string state_text(const Nf4Layout& layout, float nested_offset) {
  nlohmann::ordered_json state;
  state["quant_type"] = "nf4";
  state["blocksize"] = layout.block_size;
  state["dtype"] = layout.dtype == DType::bf16  ? "bfloat16"
                   : layout.dtype == DType::f16 ? "float16"
                                                : "float32";
  state["shape"] = {layout.out, layout.in};
  if (layout.nested) {
    state["nested_blocksize"] = layout.nested_block_size;
    state["nested_dtype"] = "float32";
    state["nested_offset"] = static_cast<double>(nested_offset);
  }
  std::string text = state.dump();
  MEDVQA_CHECK(text.size() <= static_cast<std::size_t>(kStateBytes), "quant_state: too long");
  text.resize(static_cast<std::size_t>(kStateBytes), ' ');
  return text;
}

std::int64_t blocks_of(const Nf4Layout& layout) {
  return (layout.out * layout.in + layout.block_size - 1) / layout.block_size;
}

}  // namespace

CheckpointWriter::CheckpointWriter(const std::filesystem::path& folder,
                                   std::vector<TensorSpec> tensors, std::uint64_t max_shard_bytes)
    : folder_(folder) {
  std::vector<std::vector<TensorSpec>> shards(1);
  std::uint64_t filled = 0;
  for (TensorSpec& tensor : tensors) {
    const std::uint64_t bytes = tensor.bytes();
    if (filled > 0 && filled + bytes > max_shard_bytes) {
      shards.emplace_back();
      filled = 0;
    }
    filled += bytes;
    total_bytes_ += bytes;
    const bool is_first = shard_of_.emplace(tensor.name, shards.size() - 1).second;
    MEDVQA_CHECK(is_first, "twice in one checkpoint: " + tensor.name);
    shards.back().push_back(std::move(tensor));
  }
  for (std::size_t i = 0; i < shards.size(); ++i) {
    shard_names_.push_back(
        shards.size() == 1 ? "model.safetensors"
                           : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size()));
    shards_.push_back(
        std::make_unique<SafetensorsWriter>(folder_ / shard_names_.back(), std::move(shards[i]),
                                            std::map<std::string, std::string>{{"format", "pt"}}));
  }
}

void CheckpointWriter::write(const std::string& name, std::span<const std::byte> bytes) {
  const auto found = shard_of_.find(name);
  MEDVQA_CHECK(found != shard_of_.end(), "not announced: " + name);
  shards_[found->second]->write(name, bytes);
}

void CheckpointWriter::commit() {
  for (const auto& shard : shards_) shard->commit();
  if (shards_.size() == 1) return;
  nlohmann::json index;
  index["metadata"]["total_size"] = total_bytes_;
  for (const auto& item : shard_of_) index["weight_map"][item.first] = shard_names_[item.second];
  write_file_atomically(folder_ / "model.safetensors.index.json",
                        std::string_view(index.dump(2) + "\n"));
}

void append_nf4_specs(std::vector<TensorSpec>& tensors, const std::string& name,
                      const Nf4Layout& layout) {
  const std::int64_t blocks = blocks_of(layout);
  const std::int64_t outer = (blocks + layout.nested_block_size - 1) / layout.nested_block_size;
  tensors.push_back({name, DType::u8, {(layout.out * layout.in + 1) / 2, 1}});
  tensors.push_back({name + ".absmax", layout.nested ? DType::u8 : DType::f32, {blocks}});
  tensors.push_back({name + ".quant_map", DType::f32, {16}});
  tensors.push_back({name + ".quant_state.bitsandbytes__nf4", DType::u8, {kStateBytes}});
  if (!layout.nested) return;
  tensors.push_back({name + ".nested_absmax", DType::f32, {outer}});
  tensors.push_back({name + ".nested_quant_map", DType::f32, {256}});
}

void write_nf4(CheckpointWriter& writer, const std::string& name, const Nf4Layout& layout,
               const Nf4Parts& parts) {
  writer.write(name, std::as_bytes(parts.packed));
  writer.write(name + ".quant_map", std::as_bytes(parts.code));
  writer.write(name + ".quant_state.bitsandbytes__nf4",
               bytes_of(state_text(layout, parts.nested_offset)));
  if (!layout.nested) {
    writer.write(name + ".absmax", std::as_bytes(parts.absmax));
    return;
  }
  writer.write(name + ".absmax", std::as_bytes(parts.codes));
  writer.write(name + ".nested_absmax", std::as_bytes(parts.nested_absmax));
  writer.write(name + ".nested_quant_map", std::as_bytes(parts.nested_map));
}

}  // namespace medvqa::io
