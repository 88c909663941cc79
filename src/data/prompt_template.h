// data.prompt: text with {column} in it. Internal to the data module.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace medvqa::data {

class PromptTemplate {
 public:
  // "{{" and "}}" stand for single braces. UserError(ExitCode::config) for unmatched ones.
  explicit PromptTemplate(const std::string& text);

  // UserError(ExitCode::config) for a column the record lacks, naming those it has.
  std::string fill(const std::map<std::string, std::string>& columns) const;

 private:
  struct Piece {
    bool is_column = false;
    std::string text;
  };
  std::vector<Piece> pieces_;
};

}  // namespace medvqa::data
