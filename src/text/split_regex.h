// The pre-tokeniser's regular expression, through Oniguruma, as `tokenizers` does it.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "medvqa/text/span.h"

namespace medvqa::text_detail {

// \p{L} and \p{N} written out as ranges of unicode_tables.h, so that their meaning does not depend
// on the Oniguruma installed.
std::string pin_classes(std::string_view pattern);

class SplitRegex {
 public:
  // `origin` names file and key in messages. Errors: UserError(model) for a wrong pattern.
  SplitRegex(std::string_view pattern, std::string_view origin);
  ~SplitRegex();
  SplitRegex(SplitRegex&&) noexcept;
  SplitRegex& operator=(SplitRegex&&) noexcept;

  // Cuts the text into matches and what lies between them, in order, without empty pieces.
  // Errors: UserError(data) if matching gives up (Oniguruma's limit on backtracking).
  std::vector<Span> pieces(std::string_view text) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

bool is_word_character(char32_t c);   // \w
bool is_space_character(char32_t c);  // \s

}  // namespace medvqa::text_detail
