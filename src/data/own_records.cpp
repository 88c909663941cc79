// The three forms for data of one's own: JSON Lines, CSV, and dataset.json.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <functional>

#include "medvqa/core/error.h"
#include "medvqa/io/json.h"
#include "src/data/readers.h"
#include "src/data/record_builder.h"

namespace medvqa::data {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail_folder(const Source& source, const std::string& expected,
                              const std::vector<fs::path>& found) {
  std::vector<std::string> names;
  for (const fs::path& path : found) names.push_back(path.filename().string());
  throw UserError(
      ExitCode::data,
      fmt::format(
          "{}: found {}, expected {}; give the file itself or mend \"split\"", source.path.string(),
          names.empty() ? std::string("no such files") : fmt::format("{}", fmt::join(names, ", ")),
          expected));
}

// The split a row belongs to by its own column or, if `by_path`, by a folder its image lies in.
std::string split_of(const RowFile& file, const Row& row, bool by_path) {
  const std::string named = optional_text(file, row, "split");
  if (!named.empty() || !by_path) return split_name(named);
  static constexpr std::array<const char*, 3> kSplits = {"train", "val", "test"};
  for (const fs::path& part : fs::path(optional_text(file, row, "image")).parent_path()) {
    const std::string name = split_name(part.string());
    if (std::find(kSplits.begin(), kSplits.end(), name) != kSplits.end()) return name;
  }
  return {};
}

// A file without any split is taken whole: its name or folder chose it. One with some rows that do
// not say is an error, for they would silently land nowhere.
std::vector<const Row*> select_rows(const Source& source, const RowFile& file, bool by_path) {
  std::vector<const Row*> selected;
  std::set<std::string> found;
  const Row* unnamed = nullptr;
  for (const Row& row : file.rows) {
    const std::string split = source.split.empty() ? "" : split_of(file, row, by_path);
    if (split == split_name(source.split)) selected.push_back(&row);
    if (split.empty() && unnamed == nullptr) unnamed = &row;
    if (!split.empty()) found.insert(split);
  }
  if (found.empty()) {
    selected.clear();
    for (const Row& row : file.rows) selected.push_back(&row);
    return selected;
  }
  if (unnamed != nullptr) {
    fail_row(file, *unnamed, "split", "none", fmt::format("one of {}", fmt::join(found, ", ")),
             "name the split in every row or in none");
  }
  if (selected.empty()) fail_split(source, found);
  return selected;
}

Records build_records(const Source& source, const std::vector<RowFile>& files, bool by_path) {
  RecordForm form;
  form.nested = by_path;
  form.keep_going = source.keep_going;
  form.text_only = source.text_only;
  RecordBuilder builder(form);
  Records records;
  for (const RowFile& file : files) {
    records.bad.insert(records.bad.end(), file.bad.begin(), file.bad.end());
    if (file.rows.empty()) continue;
    for (const Row* row : select_rows(source, file, by_path)) builder.add(file, *row, records);
  }
  builder.check_images();
  return records;
}

// One file a split, or dataset.EXTENSION with the split in a column.
Records read_line_files(const Source& source, const std::string& extension, bool by_path,
                        const std::function<RowFile(const fs::path&)>& read) {
  if (!fs::is_directory(source.path)) return build_records(source, {read(source.path)}, by_path);
  const auto all = files_in(source.path, extension);
  std::vector<RowFile> files;
  for (const fs::path& path : all) {
    const std::string stem = path.stem().string();
    if (!source.split.empty() && split_name(stem) != split_name(source.split)) continue;
    if (source.split.empty() && stem != "dataset") continue;
    files.push_back(read(path));
  }
  if (!files.empty()) {
    Source whole = source;
    whole.split.clear();  // the file's name has chosen
    return build_records(whole, files, by_path);
  }
  const fs::path dataset = source.path / ("dataset" + extension);
  if (std::find(all.begin(), all.end(), dataset) != all.end()) {
    return build_records(source, {read(dataset)}, by_path);
  }
  if (!source.split.empty() || all.empty()) {
    const std::string name = source.split.empty() ? "SPLIT" : source.split;
    fail_folder(source, fmt::format("{0}{1} or dataset{1}", name, extension), all);
  }
  for (const fs::path& path : all) files.push_back(read(path));
  return build_records(source, files, by_path);
}

}  // namespace

Records read_jsonl(const Source& source) {
  return read_line_files(source, ".jsonl", false, [&source](const fs::path& path) {
    return read_json_lines(path, source.keep_going);
  });
}

Records read_csv(const Source& source) {
  return read_line_files(source, ".csv", true, [&source](const fs::path& path) {
    return read_csv_rows(path, source.delimiter, source.keep_going);
  });
}

Records read_json(const Source& source) {
  fs::path path = source.path;
  if (fs::is_directory(path)) {
    path /= "dataset.json";
    std::error_code error;
    if (!fs::exists(path, error)) {
      fail_folder(source, "dataset.json", files_in(source.path, ".json"));
    }
  }
  return build_records(source, {read_json_rows(path, source.keep_going)}, true);
}

}  // namespace medvqa::data
