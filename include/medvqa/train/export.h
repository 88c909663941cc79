// A trained adapter as others take it: merged into its base, or re-spelled.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "medvqa/core/dtype.h"
#include "medvqa/io/checkpoint_writer.h"
#include "medvqa/io/peft_adapter.h"
#include "medvqa/nn/builder.h"

namespace medvqa::train {

enum class ExportForm : std::uint8_t {
  merged,   // a 16-bit checkpoint in Hugging Face layout
  adapter,  // a PEFT folder
};

struct ExportRequest {
  std::filesystem::path run;      // its adapter and its base; or
  std::filesystem::path adapter;  // a PEFT folder
  std::string base;               // folder or Hub id; empty: as the run or the adapter names it
  std::filesystem::path out;
  ExportForm form = ExportForm::merged;
  bool overwrite = false;  // replace an earlier export
  // merged:
  std::optional<DType> dtype;  // bf16 or f16; none: the base's, bf16 if that is wider
  std::uint64_t max_shard_bytes = io::kMaxShardBytes;
  // What the adapter was trained on; none: as the run says, else as the base's files are.
  std::optional<nn::QuantizeOnLoad> quantize;
  // adapter:
  io::KeyStyle key_style = io::KeyStyle::current;
  // Asked between tensors.
  std::function<bool()> stop_requested;
};

// Writes the folder, reopens it and proves it, all beside `out`, which then appears whole. Returns
// false, leaving nothing, if it was asked to stop.
//
// merged: config.json without quantization_config, weights named as in the base's files, tokenizer,
// processor, generation, licence files and a model card. Proven: no tensor lost, every shape the
// base's, adapted tensors other than the base's and all the rest equal to them. With a trimmed
// classification head beside the adapter: a LlamaForSequenceClassification.
// adapter: what write_peft_adapter writes. Proven: every key a linear of the base, every size
// right.
//
// UserError: usage or config for the folders, model for base and adapter (also if every B is zero
// or nothing changes in the output type), io for what cannot be written.
bool export_model(const ExportRequest& request);

}  // namespace medvqa::train
