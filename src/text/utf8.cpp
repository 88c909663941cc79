#include "src/text/utf8.h"

#include <cstdint>

namespace medvqa::text_detail {
namespace {

struct LeadByte {
  std::size_t bytes;  // of the whole sequence; 0: not a lead byte
  char32_t bits;      // its part of the value
  std::uint8_t low;   // the range of the second byte, which excludes overlong forms,
  std::uint8_t high;  // surrogates and values above U+10FFFF
};

LeadByte lead(std::uint8_t byte) {
  if (byte < 0x80) return {1, byte, 0, 0};
  if (byte < 0xc2) return {0, 0, 0, 0};
  if (byte < 0xe0) return {2, byte & 0x1fu, 0x80, 0xbf};
  if (byte == 0xe0) return {3, 0, 0xa0, 0xbf};
  if (byte == 0xed) return {3, 0xd, 0x80, 0x9f};
  if (byte < 0xf0) return {3, byte & 0xfu, 0x80, 0xbf};
  if (byte == 0xf0) return {4, 0, 0x90, 0xbf};
  if (byte < 0xf4) return {4, byte & 0x7u, 0x80, 0xbf};
  if (byte == 0xf4) return {4, 4, 0x80, 0x8f};
  return {0, 0, 0, 0};
}

}  // namespace

CodePoint decode_at(std::string_view text, std::size_t offset) {
  const LeadByte first = lead(static_cast<std::uint8_t>(text[offset]));
  if (first.bytes == 0) return {0, 1, false};
  char32_t value = first.bits;
  for (std::size_t i = 1; i < first.bytes; ++i) {
    if (offset + i >= text.size()) return {0, i, false};
    const auto byte = static_cast<std::uint8_t>(text[offset + i]);
    const bool fits = i == 1 ? byte >= first.low && byte <= first.high : (byte & 0xc0) == 0x80;
    if (!fits) return {0, i, false};
    value = (value << 6) | (byte & 0x3fu);
  }
  return {value, first.bytes, true};
}

std::size_t previous_boundary(std::string_view text, std::size_t end) {
  std::size_t begin = end - 1;
  while (begin > 0 && (static_cast<std::uint8_t>(text[begin]) & 0xc0) == 0x80) --begin;
  return begin;
}

void append(std::string& text, char32_t c) {
  const auto put = [&text](char32_t byte) { text += static_cast<char>(byte); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xc0 | (c >> 6));
    put(0x80 | (c & 0x3f));
  } else if (c < 0x10000) {
    put(0xe0 | (c >> 12));
    put(0x80 | ((c >> 6) & 0x3f));
    put(0x80 | (c & 0x3f));
  } else {
    put(0xf0 | (c >> 18));
    put(0x80 | ((c >> 12) & 0x3f));
    put(0x80 | ((c >> 6) & 0x3f));
    put(0x80 | (c & 0x3f));
  }
}

std::optional<std::size_t> first_invalid(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    const CodePoint c = decode_at(text, at);
    if (!c.valid) return at;
    at += c.bytes;
  }
  return std::nullopt;
}

std::string replace_invalid(std::string_view bytes) {
  constexpr char32_t kReplacement = 0xfffd;
  std::string text;
  text.reserve(bytes.size());
  for (std::size_t at = 0; at < bytes.size();) {
    const CodePoint c = decode_at(bytes, at);
    if (c.valid) {
      text += bytes.substr(at, c.bytes);
    } else {
      append(text, kReplacement);
    }
    at += c.bytes;
  }
  return text;
}

}  // namespace medvqa::text_detail
