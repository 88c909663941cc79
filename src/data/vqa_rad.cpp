// VQA-RAD (Lau et al. 2018) in the three forms it is passed around in.
#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <tuple>

#include "medvqa/core/error.h"
#include "src/data/readers.h"
#include "src/data/record_builder.h"

namespace medvqa::data {
namespace {

namespace fs = std::filesystem;

constexpr const char* kDuplicate = "vqa-rad: same image, question and answer as an earlier row";
constexpr const char* kInTest = "vqa-rad: train question that is also in the test";

bool is_file(const fs::path& path) {
  std::error_code error;
  return fs::is_regular_file(path, error);
}

bool is_selected(const Source& source, const std::string& split) {
  return source.split.empty() || split_name(source.split) == split_name(split);
}

// Rows whose text is final: one file a split.
Records read_published(const Source& source, const std::vector<fs::path>& files) {
  RecordForm form;
  form.needs_image = true;
  form.keep_going = source.keep_going;
  RecordBuilder builder(form);
  Records records;
  std::set<std::string> found;
  bool is_known = false;
  for (const fs::path& path : files) {
    const std::string split = path.stem().string();
    found.insert(split);
    if (!is_selected(source, split)) continue;
    is_known = true;
    const RowFile file = read_json_lines(path, source.keep_going);
    records.bad.insert(records.bad.end(), file.bad.begin(), file.bad.end());
    for (const Row& row : file.rows) builder.add(file, row, records);
  }
  if (!is_known) fail_split(source, found);
  builder.check_images();
  return records;
}

struct OriginalRow {
  const RowFile* file = nullptr;
  const Row* row = nullptr;
  bool is_test = false;
  std::tuple<std::string, std::string, std::string> triple;  // image, question, answer
};

bool is_test_row(const RowFile& file, const Row& row) {
  if (file.path.stem() == "testset") return true;
  if (file.path.stem() == "trainset") return false;
  return required_text(file, row, "phrase_type").starts_with("test_");
}

RecordForm original_form() {
  RecordForm form;
  form.image = "image_name";
  form.needs_image = true;
  form.lower_case = true;
  return form;
}

std::vector<OriginalRow> collect_rows(const std::vector<RowFile>& files) {
  const RecordForm form = original_form();
  std::vector<OriginalRow> rows;
  for (const RowFile& file : files) {
    for (const Row& row : file.rows) {
      rows.push_back({&file,
                      &row,
                      is_test_row(file, row),
                      {required_text(file, row, form.image),
                       spelled(required_text(file, row, "question"), form),
                       spelled(required_text(file, row, "answer"), form)}});
    }
  }
  return rows;
}

Records read_original(const Source& source, const std::vector<fs::path>& paths) {
  std::vector<RowFile> files;
  for (const fs::path& path : paths) files.push_back(read_json_rows(path));
  const std::vector<OriginalRow> rows = collect_rows(files);
  std::set<std::string> found;
  std::set<decltype(OriginalRow::triple)> in_test;
  for (const OriginalRow& row : rows) {
    found.insert(row.is_test ? "test" : "train");
    if (row.is_test) in_test.insert(row.triple);
  }
  const auto selects = [&](const std::string& split) { return is_selected(source, split); };
  if (std::none_of(found.begin(), found.end(), selects)) fail_split(source, found);
  RecordForm form = original_form();
  form.keep_going = source.keep_going;
  RecordBuilder builder(form);
  Records records;
  std::set<std::pair<bool, decltype(OriginalRow::triple)>> seen;
  for (const OriginalRow& row : rows) {
    if (!is_selected(source, row.is_test ? "test" : "train")) continue;
    if (!seen.emplace(row.is_test, row.triple).second) {
      ++records.dropped[kDuplicate];
    } else if (!row.is_test && in_test.contains(row.triple)) {
      ++records.dropped[kInTest];
    } else {
      builder.add(*row.file, *row.row, records);
    }
  }
  builder.check_images();
  return records;
}

bool has_original_fields(const fs::path& path) {
  const RowFile file = read_json_rows(path);
  const nlohmann::json& first = file.rows.front().value;
  return first.contains("image_name") && first.contains("phrase_type") &&
         first.contains("question") && first.contains("answer");
}

std::optional<fs::path> find_original(const fs::path& folder) {
  const fs::path usual = folder / "VQA_RAD Dataset Public.json";
  if (is_file(usual)) return usual;
  for (const fs::path& path : files_in(folder, ".json")) {
    if (path.stem() == "trainset" || path.stem() == "testset") continue;
    if (has_original_fields(path)) return path;
  }
  return std::nullopt;
}

std::vector<fs::path> existing(const fs::path& folder, std::initializer_list<const char*> names) {
  std::vector<fs::path> files;
  for (const char* name : names) {
    if (is_file(folder / name)) files.push_back(folder / name);
  }
  return files;
}

}  // namespace

Records read_vqa_rad(const Source& source) {
  const fs::path& path = source.path;
  if (!fs::is_directory(path)) {
    if (path.extension() == ".jsonl") return read_published(source, {path});
    return read_original(source, {path});
  }
  const auto published = existing(path, {"train.jsonl", "test.jsonl"});
  if (!published.empty()) return read_published(source, published);
  if (const auto original = find_original(path)) return read_original(source, {*original});
  const auto mevf = existing(path, {"trainset.json", "testset.json"});
  if (!mevf.empty()) return read_original(source, mevf);
  throw UserError(ExitCode::data,
                  fmt::format("{}: found no VQA-RAD files, expected train.jsonl and test.jsonl, "
                              "\"VQA_RAD Dataset Public.json\", or trainset.json and testset.json",
                              path.string()));
}

}  // namespace medvqa::data
