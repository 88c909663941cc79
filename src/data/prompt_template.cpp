#include "src/data/prompt_template.h"

#include <fmt/format.h>

#include "medvqa/core/error.h"

namespace medvqa::data {

PromptTemplate::PromptTemplate(const std::string& text) {
  const auto fail = [&](const char* found) {
    throw UserError(ExitCode::config,
                    fmt::format("data.prompt \"{}\": found {}, expected columns as {{name}}; write "
                                "{{{{ and }}}} for braces",
                                text, found));
  };
  std::string literal;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c != '{' && c != '}') {
      literal += c;
    } else if (i + 1 < text.size() && text[i + 1] == c) {
      literal += c;
      ++i;
    } else if (c == '}') {
      fail("a } without {");
    } else {
      const std::size_t end = text.find_first_of("{}", i + 1);
      if (end == std::string::npos || text[end] == '{') fail("a { without }");
      if (end == i + 1) fail("{} without a name");
      if (!literal.empty()) pieces_.push_back({false, std::move(literal)});
      literal.clear();
      pieces_.push_back({true, text.substr(i + 1, end - i - 1)});
      i = end;
    }
  }
  if (!literal.empty()) pieces_.push_back({false, std::move(literal)});
}

std::string PromptTemplate::fill(const std::map<std::string, std::string>& columns) const {
  std::string text;
  for (const Piece& piece : pieces_) {
    if (!piece.is_column) {
      text += piece.text;
      continue;
    }
    const auto column = columns.find(piece.text);
    if (column == columns.end()) {
      std::vector<std::string> names;
      for (const auto& [name, value] : columns) names.push_back(name);
      throw UserError(
          ExitCode::config,
          fmt::format("data.prompt: found {{{}}}, expected one of the record's columns: "
                      "{}",
                      piece.text, fmt::join(names, ", ")));
    }
    text += column->second;
  }
  return text;
}

}  // namespace medvqa::data
