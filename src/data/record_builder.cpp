#include "src/data/record_builder.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "medvqa/core/error.h"
#include "medvqa/io/json.h"

namespace medvqa::data {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// Below the folder of the data file. The last is how VQA-RAD's authors publish theirs.
constexpr std::array<const char*, 3> kImageFolders = {"", "images", "VQA_RAD Image Folder"};

std::string scalar_text(const json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

bool is_scalar(const json& value) {
  return value.is_primitive() && !value.is_null();
}

// "Effusion| Mass" and ["Effusion", "Mass"] alike.
std::string label_text(const RowFile& file, const Row& row, const json& value) {
  std::vector<std::string> labels;
  const auto add = [&](const std::string& label) {
    if (!stripped(label).empty()) labels.push_back(stripped(label));
  };
  if (value.is_array()) {
    for (const json& item : value) {
      if (!item.is_string() && !item.is_number_integer()) {
        fail_row(file, row, "label", fmt::format("{} in a list", io::describe_json(item)), "texts",
                 "mend the row");
      }
      add(scalar_text(item));
    }
    return fmt::format("{}", fmt::join(labels, "|"));
  }
  const std::string text = scalar_text(value);
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find('|', begin), text.size());
    add(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return fmt::format("{}", fmt::join(labels, "|"));
}

void add_nested(const RowFile& file, const Row& row, std::map<std::string, std::string>& columns) {
  const json& value = row.value;
  if (value.contains("label") && !value["label"].is_null()) {
    if (value["label"].is_object()) {
      fail_row(file, row, "label", "an object", "a text or a list of texts", "mend the row");
    }
    columns["label"] = label_text(file, row, value["label"]);
  }
  if (!value.contains("meta") || !value["meta"].is_object()) return;
  for (const auto& item : value["meta"].items()) {
    if (is_scalar(item.value())) columns["meta." + item.key()] = scalar_text(item.value());
  }
}

fs::path find_file(const fs::path& folder, const std::string& name) {
  std::error_code error;
  for (const char* place : kImageFolders) {
    fs::path candidate = folder / place / name;
    if (fs::is_regular_file(candidate, error)) return candidate;
  }
  return {};
}

}  // namespace

std::string spelled(const std::string& text, const RecordForm& form) {
  if (!form.lower_case) return text;
  std::string lower = stripped(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lower;
}

Record RecordBuilder::build(const RowFile& file, const Row& row) {
  Record record;
  record.id = unique_id(file, row);
  record.place = where(file, row);
  for (const auto& item : row.value.items()) {
    if (is_scalar(item.value())) record.columns[item.key()] = scalar_text(item.value());
  }
  if (form_.nested) add_nested(file, row, record.columns);
  if (form_.text_only) {
    const auto image = record.columns.find(form_.image);
    if (image != record.columns.end()) record.image_name = image->second;
    return record;
  }
  record.question = spelled(required_text(file, row, "question"), form_);
  record.answer = spelled(required_text(file, row, "answer"), form_);
  record.columns["question"] = record.question;
  record.columns["answer"] = record.answer;
  find_image(file, row, record);
  return record;
}

void RecordBuilder::add(const RowFile& file, const Row& row, Records& records) {
  try {
    records.rows.push_back(build(file, row));
  } catch (const UserError& error) {
    if (!form_.keep_going) throw;
    records.bad.emplace_back(error.what());
  }
}

void RecordBuilder::find_image(const RowFile& file, const Row& row, Record& record) {
  const auto found = row.value.find(form_.image);
  if (!form_.needs_image && (found == row.value.end() || found->is_null())) return;
  constexpr const char* kExpected = "the name of an image file";
  record.image_name = required_text(file, row, form_.image);
  if (!found->is_string()) {
    fail_row(file, row, form_.image, io::describe_json(*found), kExpected, "mend the row");
  }
  if (record.image_name.find('\0') != std::string::npos) {
    fail_row(file, row, form_.image, "a name with a zero byte", kExpected, "mend the row");
  }
  const fs::path folder = file.path.parent_path();
  const auto [place, is_new] = images_.try_emplace(folder / record.image_name);
  if (is_new) {
    place->second = find_file(folder, record.image_name);
    if (place->second.empty() && !form_.keep_going) {
      missing_.push_back(fmt::format("{} ({})", io::describe_json(*found), where(file, row)));
    }
  }
  record.image = place->second;
  if (record.image.empty() && form_.keep_going) {
    fail_row(file, row, form_.image, io::describe_json(*found) + ", which is missing",
             "a file beside the data file or in \"images\" there", "copy it or mend the path");
  }
}

std::string RecordBuilder::unique_id(const RowFile& file, const Row& row) {
  const std::string place = fmt::format("{}:{}", file.path.stem().string(), row.number);
  std::string id = optional_text(file, row, "id");
  if (id.empty()) id = optional_text(file, row, "qid");
  if (id.empty()) id = place;
  // The place is unique inside a file; two files of one source can still share a stem.
  while (!ids_.insert(id).second) id += "@" + place;
  return id;
}

void RecordBuilder::check_images() const {
  if (missing_.empty()) return;
  constexpr std::size_t kShown = 3;
  const std::vector<std::string> first(
      missing_.begin(),
      missing_.begin() + static_cast<std::ptrdiff_t>(std::min(kShown, missing_.size())));
  throw UserError(
      ExitCode::data,
      fmt::format("column \"{}\": {} of {} images are missing: {}{}; expected each beside the data "
                  "file or in \"images\" there: copy them or mend the paths",
                  form_.image, missing_.size(), images_.size(), fmt::join(first, ", "),
                  missing_.size() > kShown ? ", ..." : ""));
}

}  // namespace medvqa::data
