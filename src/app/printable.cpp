#include "medvqa/app/printable.h"

#include <fmt/format.h>

namespace medvqa::app {

namespace {

unsigned byte_at(const std::string& text, std::size_t i) {
  return i < text.size() ? static_cast<unsigned char>(text[i]) : 0;
}

// Bytes of the character that begins at `i`; 0 if none does, or a control character.
std::size_t character_length(const std::string& text, std::size_t i) {
  const unsigned first = byte_at(text, i);
  if (first >= 0x20 && first < 0x7f) return 1;
  const std::size_t length = first >= 0xc2 && first <= 0xdf   ? 2
                             : first >= 0xe0 && first <= 0xef ? 3
                             : first >= 0xf0 && first <= 0xf4 ? 4
                                                              : 0;
  for (std::size_t k = 1; k < length; ++k) {
    if ((byte_at(text, i + k) & 0xc0u) != 0x80) return 0;
  }
  const unsigned second = byte_at(text, i + 1);
  const bool overlong = (first == 0xe0 && second < 0xa0) || (first == 0xf0 && second < 0x90);
  const bool outside = (first == 0xed && second > 0x9f) || (first == 0xf4 && second > 0x8f);
  return overlong || outside || (first == 0xc2 && second < 0xa0) ? 0 : length;
}

}  // namespace

std::string printable(const std::string& text) {
  std::string out;
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t length = character_length(text, i);
    out += length > 0 ? text.substr(i, length) : fmt::format("\\x{:02x}", byte_at(text, i));
    i += length > 0 ? length : 1;
  }
  return out;
}

}  // namespace medvqa::app
