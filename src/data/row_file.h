// Rows of JSON and CSV files, with what an error needs to name one. Internal to the data module.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace medvqa::data {

struct Row {
  std::int64_t number = 0;  // from 1: the line in the file, or the place in a JSON list
  nlohmann::json value;     // an object
};

struct RowFile {
  std::filesystem::path path;
  std::vector<Row> rows;
  std::vector<std::string> bad;  // messages about rows that are not here, with keep_going
  const char* unit = "row";      // what messages call the number
};

// The whole text, without a byte order mark. UserError(ExitCode::data) if there is no such file.
std::string read_data_file(const std::filesystem::path& path);

// UserError(ExitCode::data) for a missing or empty file, wrong JSON, a row that is no object.
RowFile read_json_lines(const std::filesystem::path& path, bool keep_going = false);
// A list, or JSON Lines if the file does not begin with one.
RowFile read_json_rows(const std::filesystem::path& path, bool keep_going = false);
// RFC 4180, the first row names the columns; every cell is a text. UserError(ExitCode::data) with
// the line for a row of another length than the header, wrong quotes, text that is not UTF-8.
RowFile read_csv_rows(const std::filesystem::path& path, char delimiter, bool keep_going = false);

std::string where(const RowFile& file, const Row& row);
[[noreturn]] void fail_row(const RowFile& file, const Row& row, const std::string& column,
                           const std::string& found, const std::string& expected,
                           const std::string& remedy);

// A text that must not be blank; a number is taken as its digits.
std::string required_text(const RowFile& file, const Row& row, const char* column);
// Empty if the column is missing or null.
std::string optional_text(const RowFile& file, const Row& row, const char* column);

// Blanks of ASCII at both ends removed.
std::string stripped(const std::string& text);

}  // namespace medvqa::data
