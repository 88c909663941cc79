// CSV files for data of one's own: the header names the columns.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>

#include "medvqa/core/error.h"
#include "medvqa/io/json.h"
#include "src/data/csv.h"
#include "src/data/readers.h"
#include "src/data/row_file.h"

namespace medvqa::data {
namespace {

using nlohmann::json;

// Columns a row may leave empty. An empty cell of any other is an empty text.
constexpr std::array<std::string_view, 4> kOptional = {"image", "id", "qid", "split"};

[[noreturn]] void fail_line(const std::filesystem::path& path, std::int64_t line,
                            const std::string& message) {
  throw UserError(ExitCode::data, fmt::format("{}, line {}: {}", path.string(), line, message));
}

// The JSON parser is the one that knows UTF-8 here.
void check_utf8(const std::filesystem::path& path, const CsvRow& row) {
  for (const std::string& cell : row.cells) {
    try {
      (void)json(cell).dump();
    } catch (const json::type_error&) {
      fail_line(path, row.line,
                "found a byte that is not UTF-8, expected UTF-8; convert the file, as with iconv");
    }
  }
}

std::vector<std::string> read_header(const std::filesystem::path& path, CsvText& text) {
  const std::optional<CsvRow> row = text.next();
  if (!row) {
    throw UserError(ExitCode::data, fmt::format("{}: found no rows, expected a header and at least "
                                                "one row; the file is empty",
                                                path.string()));
  }
  if (!row->problem.empty()) fail_line(path, row->line, "found " + row->problem);
  check_utf8(path, *row);
  std::set<std::string> names;
  for (const std::string& name : row->cells) {
    if (stripped(name).empty()) {
      fail_line(path, row->line, "found a column without a name, expected names in the header");
    }
    if (!names.insert(name).second) {
      fail_line(path, row->line,
                fmt::format("found the column {} twice, expected every name once; rename one",
                            io::describe_json(name)));
    }
  }
  return row->cells;
}

json row_value(const std::filesystem::path& path, const std::vector<std::string>& header,
               CsvRow row) {
  if (!row.problem.empty()) fail_line(path, row.line, "found " + row.problem);
  if (row.cells.size() != header.size()) {
    fail_line(path, row.line,
              fmt::format("found {} cells, expected {} as in the header; put cells with the "
                          "delimiter or a line break in them into quotes",
                          row.cells.size(), header.size()));
  }
  check_utf8(path, row);
  json value = json::object();
  for (std::size_t i = 0; i < header.size(); ++i) {
    const bool is_absent = row.cells[i].empty() && std::find(kOptional.begin(), kOptional.end(),
                                                             header[i]) != kOptional.end();
    value[header[i]] = is_absent ? json() : json(std::move(row.cells[i]));
  }
  return value;
}

}  // namespace

RowFile read_csv_rows(const std::filesystem::path& path, char delimiter, bool keep_going) {
  const std::string content = read_data_file(path);
  CsvText text(content, delimiter);
  const std::vector<std::string> header = read_header(path, text);
  RowFile file{path, {}, {}, "line"};
  while (std::optional<CsvRow> row = text.next()) {
    const std::int64_t line = row->line;
    try {
      file.rows.push_back({line, row_value(path, header, std::move(*row))});
    } catch (const UserError& error) {
      if (!keep_going) throw;
      file.bad.emplace_back(error.what());
    }
  }
  if (file.rows.empty() && file.bad.empty()) {
    throw UserError(
        ExitCode::data,
        fmt::format("{}: found a header and no rows, expected at least one row", path.string()));
  }
  return file;
}

}  // namespace medvqa::data
