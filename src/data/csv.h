// Comma-separated values as RFC 4180 defines them. Internal to the data module.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace medvqa::data {

struct CsvRow {
  std::int64_t line = 0;  // where it begins, from 1
  std::vector<std::string> cells;
  std::string problem;  // what breaks the form, empty if nothing; the cells are then not whole
};

// Rows end with CR LF, LF or CR; a cell in quotes may hold delimiters, line breaks and doubled
// quotes. Blank lines between rows are passed over.
class CsvText {
 public:
  // The text is kept by reference.
  CsvText(std::string_view text, char delimiter) : text_(text), delimiter_(delimiter) {}

  // Nothing after the last row. A row with a problem ends at the next line break, or at the end of
  // the text if a quote is never closed.
  std::optional<CsvRow> next();

 private:
  bool at_line_break() const;
  void pass_line_break();
  void read_quoted(CsvRow& row);
  void read_plain(CsvRow& row);

  std::string_view text_;
  char delimiter_;
  std::size_t at_ = 0;
  std::int64_t line_ = 1;
};

}  // namespace medvqa::data
