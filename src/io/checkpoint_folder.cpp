#include "medvqa/io/checkpoint_folder.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include "medvqa/io/json.h"
#include "medvqa/io/model_config.h"

namespace medvqa::io {
namespace fs = std::filesystem;
namespace {

constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";
constexpr const char* kNf4State = ".quant_state.bitsandbytes__nf4";
constexpr const char* kFp4State = ".quant_state.bitsandbytes__fp4";
constexpr std::array kSideSuffixes = {".absmax", ".quant_map", ".nested_absmax",
                                      ".nested_quant_map", kNf4State};

std::int64_t ceil_div(std::int64_t a, std::int64_t b) {
  return a / b + (a % b != 0 ? 1 : 0);
}

DType dtype_of_state(const JsonObject& state) {
  const std::string name = state.string("dtype");
  if (name == "bfloat16") return DType::bf16;
  if (name == "float16") return DType::f16;
  if (name == "float32") return DType::f32;
  state.fail(fmt::format("dtype \"{}\"; expected \"bfloat16\", \"float16\" or \"float32\"", name));
}

std::int64_t block_size_of(const JsonObject& state, const char* key) {
  const std::int64_t size = state.integer(key);
  if (size < 32 || size > 4096 || (size & (size - 1)) != 0) {
    state.fail(fmt::format("{} {}; expected a power of two from 32 to 4096", key, size));
  }
  return size;
}

}  // namespace

bool has_weights(const fs::path& folder) {
  return fs::exists(folder / kSingleFile) || fs::exists(folder / kIndexFile);
}

CheckpointFolder::CheckpointFolder(const fs::path& folder)
    : folder_(folder), config_(read_model_config(folder)) {
  style_ = name_style_of(config_.at("model_type").get<std::string>());
  open_shards();
}

void CheckpointFolder::fail(const std::string& message) const {
  throw UserError(ExitCode::model, fmt::format("{}: {}", folder_.string(), message));
}

void CheckpointFolder::open_shards() {
  if (fs::exists(folder_ / kSingleFile)) {
    add_file(folder_ / kSingleFile);
    return;
  }
  if (!fs::exists(folder_ / kIndexFile)) {
    fail(fmt::format("no weights: expected {} or {}", kSingleFile, kIndexFile));
  }
  const fs::path index_path = folder_ / kIndexFile;
  const nlohmann::json index = read_json_file(index_path, {ExitCode::model});
  const JsonObject top(index, index_path.string(), ExitCode::model);
  const JsonObject map = top.object("weight_map");
  std::set<std::string> shards;
  for (const auto& item : index.at("weight_map").items()) {
    const std::string shard = map.string(item.key().c_str());
    if (shard.find('/') != std::string::npos || shard.find('\\') != std::string::npos ||
        shard.starts_with(".") || !shard.ends_with(".safetensors")) {
      map.fail(fmt::format("\"{}\" lies in \"{}\"; expected a *.safetensors file of this folder",
                           item.key(), shard));
    }
    shards.insert(shard);
  }
  if (shards.empty()) fail(fmt::format("{} names no shard", kIndexFile));
  for (const std::string& shard : shards) {
    if (!fs::exists(folder_ / shard)) {
      fail(
          fmt::format("the shard {} named by {} is missing; download it again", shard, kIndexFile));
    }
    add_file(folder_ / shard);
  }
  check_weight_map(index.at("weight_map"));
}

void CheckpointFolder::add_file(const fs::path& path) {
  files_.emplace_back(path);
  const std::size_t file = files_.size() - 1;
  for (const auto& item : files_.back().entries()) {
    const std::string name = canonical_name(style_, item.first);
    const auto inserted = places_.emplace(name, Place{file, item.first});
    if (inserted.second) continue;
    const Place& other = inserted.first->second;
    fail(fmt::format("tensor \"{}\" is stored twice: as \"{}\" in {} and as \"{}\" in {}", name,
                     other.stored, files_[other.file].path().filename().string(), item.first,
                     path.filename().string()));
  }
}

void CheckpointFolder::check_weight_map(const nlohmann::json& weight_map) const {
  for (const auto& item : weight_map.items()) {
    const std::string shard = item.value().get<std::string>();
    const auto found = places_.find(canonical_name(style_, item.key()));
    if (found == places_.end() || files_[found->second.file].path().filename() != shard) {
      fail(fmt::format("{} says \"{}\" is in {}, but it is not there; download it again",
                       kIndexFile, item.key(), shard));
    }
  }
}

bool CheckpointFolder::contains(const std::string& name) const {
  return places_.contains(name);
}

std::vector<std::string> CheckpointFolder::names() const {
  std::vector<std::string> names;
  for (const auto& item : places_) {
    const std::string& name = item.first;
    const bool side = std::any_of(kSideSuffixes.begin(), kSideSuffixes.end(), [&](const char* s) {
      const std::string_view suffix = s;
      return name.ends_with(suffix) &&
             places_.contains(name.substr(0, name.size() - suffix.size()) + kNf4State);
    });
    if (!side) names.push_back(name);
  }
  return names;
}

bool CheckpointFolder::quantized() const {
  return std::any_of(places_.begin(), places_.end(),
                     [](const auto& item) { return item.first.ends_with(kNf4State); });
}

const std::string& CheckpointFolder::stored_name(const std::string& name) const {
  return place_of(name).stored;
}

std::vector<std::int64_t> CheckpointFolder::shape_of(const std::string& name) const {
  if (!contains(name + kNf4State)) return tensor(name).shape;
  const nlohmann::json state = quant_state(name);
  return JsonObject(state, fmt::format("{}: {}", folder_.string(), name + kNf4State),
                    ExitCode::model)
      .integers("shape", 8);
}

const CheckpointFolder::Place& CheckpointFolder::place_of(const std::string& name) const {
  const auto found = places_.find(name);
  if (found == places_.end()) {
    const std::string hub = hub_name(style_, name);
    fail(fmt::format("tensor \"{}\"{} is missing; is this the folder of a {}?", name,
                     hub == name ? "" : fmt::format(" (or \"{}\")", hub),
                     config_.at("model_type").get<std::string>()));
  }
  return found->second;
}

nn::HostTensor CheckpointFolder::tensor(const std::string& name) const {
  const Place& place = place_of(name);
  return files_[place.file].tensor(place.stored);
}

nn::HostTensor CheckpointFolder::dense(const nn::TensorRequest& request) const {
  if (contains(request.name + kNf4State) || contains(request.name + kFp4State)) {
    fail(fmt::format("tensor \"{}\" is 4-bit; expected it in full precision here", request.name));
  }
  const nn::HostTensor found = tensor(request.name);
  if (!is_floating(found.dtype)) {
    fail(fmt::format("tensor \"{}\" is {}; expected a floating type", request.name,
                     name_of(found.dtype)));
  }
  if (found.shape != request.shape) {
    fail(fmt::format("tensor \"{}\" has shape {}; config.json calls for {}", request.name,
                     found.shape, request.shape));
  }
  return found;
}

nlohmann::json CheckpointFolder::quant_state(const std::string& name) const {
  const Place& place = place_of(name + kNf4State);
  const std::span<const std::byte> bytes = files_[place.file].raw(place.stored);
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return parse_json(text, fmt::format("{}: {}", folder_.string(), name + kNf4State),
                    {ExitCode::model, false, 4});
}

nn::HostTensor CheckpointFolder::side_tensor(const std::string& name, DType dtype,
                                             std::int64_t elements) const {
  const nn::HostTensor found = tensor(name);
  const std::size_t bytes = static_cast<std::size_t>(elements) * size_of(dtype);
  if (found.dtype != dtype || found.bytes.size() != bytes) {
    fail(fmt::format("tensor \"{}\" is {} {}; expected {} with {} elements", name,
                     name_of(found.dtype), found.shape, name_of(dtype), elements));
  }
  return {dtype, {elements}, found.bytes};
}

void CheckpointFolder::read_nested(const std::string& name, const nlohmann::json& state,
                                   nn::HostNf4& weight, std::int64_t blocks) const {
  const JsonObject fields(state, fmt::format("{}: {}", folder_.string(), name + kNf4State),
                          ExitCode::model);
  weight.nested = true;
  weight.nested_block_size = block_size_of(fields, "nested_blocksize");
  weight.nested_offset = static_cast<float>(fields.number("nested_offset"));
  if (!std::isfinite(weight.nested_offset)) fields.fail("nested_offset is not finite");
  if (fields.string_or("nested_dtype", "float32") != "float32") {
    fields.fail(
        fmt::format("nested_dtype \"{}\"; expected \"float32\"", fields.string("nested_dtype")));
  }
  weight.absmax = side_tensor(name + ".absmax", DType::u8, blocks);
  weight.nested_absmax =
      side_tensor(name + ".nested_absmax", DType::f32, ceil_div(blocks, weight.nested_block_size));
  weight.nested_map = side_tensor(name + ".nested_quant_map", DType::f32, 256);
}

std::optional<nn::HostNf4> CheckpointFolder::nf4(const nn::TensorRequest& request) const {
  const std::string& name = request.name;
  if (contains(name + kFp4State)) {
    fail(
        fmt::format("tensor \"{}\" is FP4; only NF4 is supported: quantise the original model "
                    "with bnb_4bit_quant_type \"nf4\", or use it unquantised",
                    name));
  }
  if (!contains(name + kNf4State)) return std::nullopt;
  const nlohmann::json state = quant_state(name);
  const JsonObject fields(state, fmt::format("{}: {}", folder_.string(), name + kNf4State),
                          ExitCode::model);
  if (fields.string("quant_type") != "nf4") {
    fields.fail(fmt::format("quant_type \"{}\"; expected \"nf4\"", fields.string("quant_type")));
  }
  const std::vector<std::int64_t> shape = fields.integers("shape", 8);
  if (shape != request.shape || shape.size() != 2 || shape[0] <= 0 || shape[1] <= 0) {
    fields.fail(fmt::format("shape {}; config.json calls for {}", shape, request.shape));
  }
  nn::HostNf4 weight;
  weight.out = shape[0];
  weight.in = shape[1];
  weight.dtype = dtype_of_state(fields);
  weight.block_size = block_size_of(fields, "blocksize");
  std::int64_t elements = 0;
  if (__builtin_mul_overflow(weight.out, weight.in, &elements) || elements % 2 != 0) {
    fields.fail(fmt::format("shape {}: expected an even number of elements", shape));
  }
  // bnb_4bit_quant_storage may wrap the same bytes in another type.
  const nn::HostTensor packed = tensor(name);
  if (packed.bytes.size() != static_cast<std::size_t>(elements / 2)) {
    fail(fmt::format("tensor \"{}\" has {} bytes; NF4 of shape {} takes {}", name,
                     packed.bytes.size(), shape, elements / 2));
  }
  weight.packed = {DType::u8, {elements / 2, 1}, packed.bytes};
  weight.code = side_tensor(name + ".quant_map", DType::f32, 16);
  const std::int64_t blocks = ceil_div(elements, weight.block_size);
  if (contains(name + ".nested_absmax") || state.contains("nested_offset")) {
    read_nested(name, state, weight, blocks);
  } else {
    weight.absmax = side_tensor(name + ".absmax", DType::f32, blocks);
  }
  return weight;
}

}  // namespace medvqa::io
