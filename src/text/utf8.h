// UTF-8, checked.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace medvqa::text_detail {

struct CodePoint {
  char32_t value = 0;
  std::size_t bytes = 0;  // for an error: how many bytes one replacement character stands for
  bool valid = false;
};

// The code point at `offset` < text.size(). Overlong forms, surrogates and values above U+10FFFF
// are errors; `bytes` is then the longest prefix of a valid sequence, as the Unicode standard
// (3.9, maximal subparts) and Python's "replace" have it.
CodePoint decode_at(std::string_view text, std::size_t offset);

// Where the code point that ends at `end` > 0 begins; the text must be valid.
std::size_t previous_boundary(std::string_view text, std::size_t end);

void append(std::string& text, char32_t c);

// The offset of the first byte that is not UTF-8.
std::optional<std::size_t> first_invalid(std::string_view text);

// Invalid parts replaced by U+FFFD.
std::string replace_invalid(std::string_view bytes);

}  // namespace medvqa::text_detail
