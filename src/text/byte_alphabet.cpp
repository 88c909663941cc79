#include "src/text/byte_alphabet.h"

#include <array>
#include <cstdint>

#include "src/text/utf8.h"

namespace medvqa::text_detail {
namespace {

constexpr std::size_t kLetters = 0x144;  // one more than the highest character in use

struct Alphabet {
  std::array<char32_t, 256> letter{};
  std::array<int, kLetters> byte{};
};

// Printable Latin-1 stands for itself, the other 68 bytes for U+0100 and what follows.
Alphabet make_alphabet() {
  Alphabet alphabet;
  alphabet.byte.fill(-1);
  char32_t next = 0x100;
  for (char32_t b = 0; b < 256; ++b) {
    const bool printable = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
    const char32_t letter = printable ? b : next++;
    alphabet.letter[b] = letter;
    alphabet.byte[letter] = static_cast<int>(b);
  }
  return alphabet;
}

const Alphabet& alphabet() {
  static const Alphabet instance = make_alphabet();
  return instance;
}

}  // namespace

std::string bytes_to_letters(std::string_view bytes) {
  std::string text;
  for (const char b : bytes) append(text, alphabet().letter[static_cast<std::uint8_t>(b)]);
  return text;
}

std::optional<std::string> letters_to_bytes(std::string_view text) {
  std::string bytes;
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint c = decode_at(text, at);
    if (!c.valid || c.value >= kLetters || alphabet().byte[c.value] < 0) return std::nullopt;
    bytes += static_cast<char>(alphabet().byte[c.value]);
    at += c.bytes;
  }
  return bytes;
}

}  // namespace medvqa::text_detail
