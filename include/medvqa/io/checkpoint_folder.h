// A model folder as the Hugging Face Hub has them, as a source of weights.
#pragma once

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "medvqa/io/safetensors.h"
#include "medvqa/io/tensor_names.h"
#include "medvqa/nn/weights.h"

namespace medvqa::io {

// config.json and model.safetensors, or model.safetensors.index.json with its shards. Everything a
// file claims is checked; every error is UserError(ExitCode::model) naming file and tensor. Names
// are canonical (tensor_names.h); files may use either form. A tensor is 4-bit exactly if
// NAME.quant_state.bitsandbytes__nf4 is stored beside it. Immutable, so safe to read from threads.
class CheckpointFolder : public nn::WeightSource {
 public:
  explicit CheckpointFolder(const std::filesystem::path& folder);

  bool contains(const std::string& name) const override;
  nn::HostTensor dense(const nn::TensorRequest& request) const override;
  std::optional<nn::HostNf4> nf4(const nn::TensorRequest& request) const override;

  // In the form of model_config.h.
  const nlohmann::json& config() const { return config_; }
  NameStyle name_style() const { return style_; }
  const std::filesystem::path& path() const { return folder_; }
  // Canonical names, sorted, without the side tensors of 4-bit weights.
  std::vector<std::string> names() const;
  // Whether any tensor is 4-bit.
  bool quantized() const;
  // As the files spell it, and its shape; a 4-bit weight's is [out, in].
  const std::string& stored_name(const std::string& name) const;
  std::vector<std::int64_t> shape_of(const std::string& name) const;
  // As it lies in the file, of whatever type; of a 4-bit weight the packed codes.
  nn::HostTensor stored(const std::string& name) const { return tensor(name); }

 private:
  struct Place {
    std::size_t file = 0;
    std::string stored;
  };

  [[noreturn]] void fail(const std::string& message) const;
  void open_shards();
  void add_file(const std::filesystem::path& path);
  void check_weight_map(const nlohmann::json& weight_map) const;
  const Place& place_of(const std::string& name) const;
  nn::HostTensor tensor(const std::string& name) const;
  nn::HostTensor side_tensor(const std::string& name, DType dtype, std::int64_t elements) const;
  void read_nested(const std::string& name, const nlohmann::json& state, nn::HostNf4& weight,
                   std::int64_t blocks) const;
  nlohmann::json quant_state(const std::string& name) const;

  std::filesystem::path folder_;
  nlohmann::json config_;
  NameStyle style_ = NameStyle::plain;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, Place> places_;
};

// Whether the folder holds weights; `plan` does without.
bool has_weights(const std::filesystem::path& folder);

}  // namespace medvqa::io
