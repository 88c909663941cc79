#include "medvqa/train/head_file.h"

#include <fmt/format.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "medvqa/core/error.h"
#include "medvqa/io/safetensors.h"

namespace medvqa::train {

namespace fs = std::filesystem;
using nlohmann::json;

const char* const kHeadFile = "head.safetensors";

namespace {

constexpr const char* kName = "head.weight";
constexpr const char* kTokens = "token_ids";

json tokens_of(const io::SafetensorsFile& file) {
  const auto found = file.metadata().find(kTokens);
  if (found == file.metadata().end()) return {};
  return json::parse(found->second, nullptr, /*allow_exceptions=*/false);
}

}  // namespace

void write_head(const fs::path& folder, const data::Classes& classes,
                std::span<const std::int32_t> tokens, std::span<const float> weight) {
  const auto rows = static_cast<std::int64_t>(tokens.size());
  const auto channels = static_cast<std::int64_t>(weight.size()) / rows;
  const std::vector<std::int32_t> ids(tokens.begin(), tokens.end());
  const std::vector<std::span<const std::byte>> bytes{std::as_bytes(weight)};
  io::write_safetensors(folder / kHeadFile, {{kName, DType::f32, {rows, channels}}}, bytes,
                        {{"format", "pt"},
                         {"labels", json(classes.labels).dump()},
                         {"texts", json(classes.texts).dump()},
                         {kTokens, json(ids).dump()}});
}

std::vector<float> read_head(const fs::path& folder, std::span<const std::int32_t> tokens,
                             std::int64_t channels) {
  const fs::path path = folder / kHeadFile;
  const io::SafetensorsFile file(path);
  const json expected(std::vector<std::int32_t>(tokens.begin(), tokens.end()));
  const json found = tokens_of(file);
  if (found != expected) {
    throw UserError(ExitCode::model,
                    fmt::format("{}: its rows are of the tokens {}, expected {}; set "
                                "classification.classes to the classes it was trained with, in "
                                "their order, or remove the file to start from the model's head",
                                path.string(), found.dump(), expected.dump()));
  }
  const nn::HostTensor stored = file.tensor(kName);
  const std::vector<std::int64_t> shape{static_cast<std::int64_t>(tokens.size()), channels};
  if (stored.dtype != DType::f32 || stored.shape != shape) {
    throw UserError(ExitCode::model,
                    fmt::format("{}: {} is {} [{}], expected f32 [{}]; the head belongs to "
                                "another model",
                                path.string(), kName, name_of(stored.dtype),
                                fmt::join(stored.shape, ", "), fmt::join(shape, ", ")));
  }
  std::vector<float> values(stored.bytes.size() / sizeof(float));
  std::memcpy(values.data(), stored.bytes.data(), stored.bytes.size());
  return values;
}

}  // namespace medvqa::train
