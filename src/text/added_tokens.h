// Tokens the file adds to the vocabulary: found in the text before anything else looks at it.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "medvqa/text/span.h"

namespace medvqa::text_detail {

struct AddedToken {
  std::int32_t id = 0;
  std::string content;
  bool single_word = false;  // only where no word character touches it
  bool lstrip = false;       // takes the white space before it along
  bool rstrip = false;       // ... after it
  bool normalized = false;   // looked for in the normalised text
  bool special = false;
};

// A stretch of text: an added token, or none of them.
struct Section {
  Span span;
  std::optional<std::int32_t> id;
};

// Finds a set of added tokens: at the leftmost place the longest one, then onwards.
class AddedTokenFinder {
 public:
  void add(AddedToken token);
  std::vector<Section> sections(std::string_view text) const;

 private:
  const AddedToken* longest_at(std::string_view text, std::size_t offset) const;

  std::array<std::vector<AddedToken>, 256> by_first_byte_;  // longest first
  bool empty_ = true;
};

}  // namespace medvqa::text_detail
