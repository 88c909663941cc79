#include "medvqa/data/record.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <set>
#include <string_view>

#include "medvqa/core/error.h"
#include "medvqa/core/mt19937.h"
#include "src/data/readers.h"

namespace medvqa::data {
namespace {

struct Reader {
  std::string_view format;
  Records (*read)(const Source& source);
};

constexpr std::array kReaders = {Reader{"vqa-rad", read_vqa_rad}, Reader{"jsonl", read_jsonl},
                                 Reader{"json", read_json}, Reader{"csv", read_csv}};
// Names the configuration reserves.
constexpr std::array<std::string_view, 6> kPlanned = {"medpix", "chestxray14", "mimic-cxr",
                                                      "openi",  "slake",       "shards"};

[[noreturn]] void fail_format(const Source& source) {
  std::vector<std::string_view> known;
  for (const Reader& reader : kReaders) known.push_back(reader.format);
  const bool is_planned =
      std::find(kPlanned.begin(), kPlanned.end(), source.format) != kPlanned.end();
  throw UserError(
      ExitCode::data,
      fmt::format("data source {}: found format \"{}\"{}, expected one of {}", source.path.string(),
                  source.format, is_planned ? ", which is not built in yet" : "",
                  fmt::join(known, ", ")));
}

// Records without a picture are held out one by one.
const std::string& held_out_by(const Record& record) {
  return record.image_name.empty() ? record.id : record.image_name;
}

}  // namespace

Records read_records(const Source& source) {
  for (const Reader& reader : kReaders) {
    if (reader.format != source.format) continue;
    std::error_code error;
    if (!std::filesystem::exists(source.path, error)) {
      throw UserError(ExitCode::data,
                      fmt::format("{}: found nothing, expected data in format \"{}\"; check the "
                                  "path in the configuration",
                                  source.path.string(), source.format));
    }
    Records records = reader.read(source);
    if (records.rows.empty() && records.bad.empty()) {
      throw UserError(ExitCode::data,
                      fmt::format("{}: found no rows for split \"{}\", expected at least one",
                                  source.path.string(), source.split));
    }
    return records;
  }
  fail_format(source);
}

Records read_records(std::span<const Source> sources) {
  Records all;
  for (const Source& source : sources) {
    Records records = read_records(source);
    std::move(records.rows.begin(), records.rows.end(), std::back_inserter(all.rows));
    for (const auto& [reason, count] : records.dropped) all.dropped[reason] += count;
  }
  return all;
}

Split hold_out_images(std::vector<Record> records, double fraction, std::uint64_t seed) {
  MEDVQA_CHECK(fraction >= 0 && fraction <= 1, "a fraction lies between 0 and 1");
  std::set<std::string> names;
  for (const Record& record : records) names.insert(held_out_by(record));
  const std::vector<std::string> sorted(names.begin(), names.end());
  const auto count = static_cast<std::size_t>(std::ceil(fraction * double(sorted.size())));
  if (count == sorted.size()) {
    throw UserError(ExitCode::data,
                    fmt::format("validation: holding out {} of {} images leaves nothing to train "
                                "on; expected a smaller fraction than {} or more data",
                                count, sorted.size(), fraction));
  }
  const auto order = TorchGenerator(seed).permutation(static_cast<std::int64_t>(sorted.size()));
  std::set<std::string> held_out;
  for (std::size_t i = 0; i < count; ++i) {
    held_out.insert(sorted[static_cast<std::size_t>(order[i])]);
  }
  Split split;
  for (Record& record : records) {
    const bool is_held_out = held_out.contains(held_out_by(record));
    (is_held_out ? split.validation : split.train).push_back(std::move(record));
  }
  return split;
}

std::string split_name(const std::string& name) {
  std::string lower = name;
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lower == "valid" || lower == "validation" ? "val" : lower;
}

void fail_split(const Source& source, const std::set<std::string>& found) {
  throw UserError(
      ExitCode::data,
      fmt::format("{}: found no split \"{}\", expected one of: {}; mend \"split\" in the "
                  "configuration or leave it out for every row",
                  source.path.string(), source.split, fmt::join(found, ", ")));
}

std::vector<std::filesystem::path> files_in(const std::filesystem::path& folder,
                                            const std::string& extension) {
  std::vector<std::filesystem::path> files;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    if (entry.path().extension() == extension) files.push_back(entry.path());
  }
  if (error) {
    throw UserError(ExitCode::data, fmt::format("cannot list the folder {}: {}; check its "
                                                "permissions",
                                                folder.string(), error.message()));
  }
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace medvqa::data
