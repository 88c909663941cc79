#include "src/data/csv.h"

#include <fmt/format.h>

namespace medvqa::data {

bool CsvText::at_line_break() const {
  return text_[at_] == '\n' || text_[at_] == '\r';
}

void CsvText::pass_line_break() {
  at_ += text_.substr(at_).starts_with("\r\n") ? 2 : 1;
  ++line_;
}

void CsvText::read_quoted(CsvRow& row) {
  const std::int64_t opened = line_;
  std::string cell;
  for (++at_; at_ < text_.size();) {
    if (text_.substr(at_).starts_with("\"\"")) {
      cell += '"';
      at_ += 2;
    } else if (text_[at_] == '"') {
      ++at_;
      row.cells.push_back(std::move(cell));
      if (at_ < text_.size() && text_[at_] != delimiter_ && !at_line_break()) {
        row.problem = "text behind a closing quote, expected a quote inside a cell to be doubled";
      }
      return;
    } else {
      const std::size_t begin = at_;
      if (at_line_break()) {
        pass_line_break();
      } else {
        ++at_;
      }
      cell.append(text_, begin, at_ - begin);
    }
  }
  row.problem = fmt::format(
      "a quote opened in line {} and never closed, expected a quote inside a cell to be doubled",
      opened);
}

void CsvText::read_plain(CsvRow& row) {
  const std::size_t begin = at_;
  while (at_ < text_.size() && text_[at_] != delimiter_ && !at_line_break()) {
    if (text_[at_] == '"') {
      row.problem =
          "a quote inside a cell without quotes, expected the cell in quotes and the quote doubled";
      return;
    }
    ++at_;
  }
  row.cells.emplace_back(text_.substr(begin, at_ - begin));
}

std::optional<CsvRow> CsvText::next() {
  while (at_ < text_.size() && at_line_break()) pass_line_break();
  if (at_ >= text_.size()) return std::nullopt;
  CsvRow row;
  row.line = line_;
  for (;;) {
    if (at_ < text_.size() && text_[at_] == '"') {
      read_quoted(row);
    } else {
      read_plain(row);
    }
    if (!row.problem.empty()) {
      while (at_ < text_.size() && !at_line_break()) ++at_;
    }
    if (at_ < text_.size() && !at_line_break()) {
      ++at_;  // the delimiter; a cell follows, even at the end of the text
      continue;
    }
    if (at_ < text_.size()) pass_line_break();
    return row;
  }
}

}  // namespace medvqa::data
