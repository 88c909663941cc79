#include "medvqa/io/classifier_head.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <set>

#include "medvqa/io/json.h"

namespace medvqa::io {
namespace {

constexpr const char* kWeight = "head.weight";
constexpr const char* kTokens = "token_ids";
constexpr const char* kLabels = "labels";

nlohmann::json list_in(const SafetensorsFile& file, const char* key, std::size_t rows) {
  const auto found = file.metadata().find(key);
  const std::string where = fmt::format("{}: {}", file.path().string(), key);
  nlohmann::json list;
  if (found != file.metadata().end()) list = parse_json(found->second, where, {ExitCode::model});
  if (!list.is_array() || list.size() != rows) {
    throw UserError(
        ExitCode::model,
        fmt::format("{}: expected a list with an entry for each of {} rows", where, rows));
  }
  return list;
}

}  // namespace

std::optional<ClassifierHead> read_classifier_head(const std::filesystem::path& folder) {
  if (!std::filesystem::exists(folder / kHeadFile)) return std::nullopt;
  ClassifierHead head{SafetensorsFile(folder / kHeadFile), {}, {}, {}};
  const auto fail = [&](const std::string& problem) {
    throw UserError(ExitCode::model, fmt::format("{}: {}", head.file.path().string(), problem));
  };
  head.weight = head.file.tensor(kWeight);
  const std::vector<std::int64_t>& shape = head.weight.shape;
  if (head.weight.dtype != DType::f32 || shape.size() != 2 || shape[0] < 2) {
    fail(fmt::format("head.weight is {} {}; expected f32 [classes, C]", name_of(head.weight.dtype),
                     shape));
  }
  const auto rows = static_cast<std::size_t>(shape[0]);
  std::set<std::int64_t> seen;
  for (const nlohmann::json& id : list_in(head.file, kTokens, rows)) {
    if (!id.is_number_integer() || id.get<std::int64_t>() < 0) {
      fail(fmt::format("token_ids holds {}; expected ids of the vocabulary", describe_json(id)));
    }
    head.token_ids.push_back(id.get<std::int64_t>());
    if (!seen.insert(head.token_ids.back()).second) {
      fail(fmt::format("token_ids holds {} twice", head.token_ids.back()));
    }
  }
  for (const nlohmann::json& label : list_in(head.file, kLabels, rows)) {
    if (!label.is_string()) fail("labels: expected strings");
    head.labels.push_back(label.get<std::string>());
  }
  return head;
}

void write_classifier_head(const std::filesystem::path& folder,
                           const std::vector<std::string>& labels,
                           const std::vector<std::string>& texts,
                           std::span<const std::int32_t> token_ids, std::span<const float> weight) {
  const auto rows = static_cast<std::int64_t>(token_ids.size());
  const auto channels = static_cast<std::int64_t>(weight.size()) / rows;
  const std::vector<std::int32_t> ids(token_ids.begin(), token_ids.end());
  const std::vector<std::span<const std::byte>> bytes{std::as_bytes(weight)};
  write_safetensors(folder / kHeadFile, {{kWeight, DType::f32, {rows, channels}}}, bytes,
                    {{"format", "pt"},
                     {kLabels, nlohmann::json(labels).dump()},
                     {"texts", nlohmann::json(texts).dump()},
                     {kTokens, nlohmann::json(ids).dump()}});
}

}  // namespace medvqa::io
