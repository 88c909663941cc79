#include "src/data/row_file.h"

#include <fmt/format.h>

#include <string_view>

#include "medvqa/core/error.h"
#include "medvqa/io/file.h"
#include "medvqa/io/json.h"

namespace medvqa::data {
namespace {

using nlohmann::json;

constexpr std::string_view kBlanks = " \t\r\n\v\f";
constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

[[noreturn]] void fail_empty(const std::filesystem::path& path) {
  throw UserError(
      ExitCode::data,
      fmt::format("{}: found no rows, expected at least one; the file is empty", path.string()));
}

Row checked_row(const RowFile& file, std::int64_t number, json value) {
  Row row{number, std::move(value)};
  if (!row.value.is_object()) {
    throw UserError(ExitCode::data,
                    fmt::format("{}: found {}, expected an object like {{\"image\": ..., "
                                "\"question\": ..., \"answer\": ...}}",
                                where(file, row), io::describe_json(row.value)));
  }
  return row;
}

// Adds what `make` returns, or the message of its error.
template <class Make>
void add_row(RowFile& file, bool keep_going, const Make& make) {
  try {
    file.rows.push_back(make());
  } catch (const UserError& error) {
    if (!keep_going) throw;
    file.bad.emplace_back(error.what());
  }
}

RowFile parse_lines(const std::filesystem::path& path, std::string_view text, bool keep_going) {
  RowFile file{path, {}, {}, "row"};
  std::int64_t number = 0;
  while (!text.empty()) {
    ++number;
    const std::size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (line.find_first_not_of(kBlanks) == std::string_view::npos) continue;
    add_row(file, keep_going, [&] {
      json value =
          io::parse_json(line, fmt::format("{}, row {}", path.string(), number), {ExitCode::data});
      return checked_row(file, number, std::move(value));
    });
  }
  if (file.rows.empty() && file.bad.empty()) fail_empty(path);
  return file;
}

}  // namespace

std::string read_data_file(const std::filesystem::path& path) {
  constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 32;
  std::error_code error;
  if (!std::filesystem::exists(path, error)) {
    throw UserError(ExitCode::data, fmt::format("{}: found nothing, expected a data file; check "
                                                "the path in the configuration",
                                                path.string()));
  }
  std::string text = io::read_text_file(path, ExitCode::data, kMostBytes);
  if (text.starts_with(kByteOrderMark)) text.erase(0, kByteOrderMark.size());
  return text;
}

RowFile read_json_lines(const std::filesystem::path& path, bool keep_going) {
  return parse_lines(path, read_data_file(path), keep_going);
}

RowFile read_json_rows(const std::filesystem::path& path, bool keep_going) {
  const std::string text = read_data_file(path);
  const std::size_t first = text.find_first_not_of(kBlanks);
  if (first == std::string::npos) fail_empty(path);
  if (text[first] != '[') return parse_lines(path, text, keep_going);
  json list = io::parse_json(text, path.string(), {ExitCode::data});
  RowFile file{path, {}, {}, "row"};
  std::int64_t number = 0;
  for (json& value : list) {
    ++number;
    add_row(file, keep_going, [&] { return checked_row(file, number, std::move(value)); });
  }
  if (file.rows.empty() && file.bad.empty()) fail_empty(path);
  return file;
}

std::string where(const RowFile& file, const Row& row) {
  return fmt::format("{}, {} {}", file.path.string(), file.unit, row.number);
}

void fail_row(const RowFile& file, const Row& row, const std::string& column,
              const std::string& found, const std::string& expected, const std::string& remedy) {
  throw UserError(ExitCode::data, fmt::format("{}, column \"{}\": found {}, expected {}; {}",
                                              where(file, row), column, found, expected, remedy));
}

std::string stripped(const std::string& text) {
  const std::size_t begin = text.find_first_not_of(kBlanks);
  if (begin == std::string::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlanks) - begin + 1);
}

std::string required_text(const RowFile& file, const Row& row, const char* column) {
  constexpr const char* kRemedy = "complete the row or remove it";
  const auto found = row.value.find(column);
  if (found == row.value.end()) {
    std::vector<std::string> names;
    for (const auto& item : row.value.items()) names.push_back(io::describe_json(item.key()));
    fail_row(file, row, column, fmt::format("only {}", fmt::join(names, ", ")), "a text", kRemedy);
  }
  if (found->is_number()) return found->dump();
  if (!found->is_string()) {
    fail_row(file, row, column, io::describe_json(*found), "a text", kRemedy);
  }
  auto text = found->get<std::string>();
  if (text.find_first_not_of(kBlanks) == std::string::npos) {
    fail_row(file, row, column, "an empty text", "a text", kRemedy);
  }
  return text;
}

std::string optional_text(const RowFile& file, const Row& row, const char* column) {
  const auto found = row.value.find(column);
  if (found == row.value.end() || found->is_null()) return {};
  return required_text(file, row, column);
}

}  // namespace medvqa::data
