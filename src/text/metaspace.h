// Spaces as SentencePiece models write them: U+2581 for each, and one before the text. As the
// pre-tokeniser Metaspace of `tokenizers` does it with split = false.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "src/text/nfc.h"

namespace medvqa::text_detail {

enum class SpacePrefix {
  never,
  first,  // at the beginning of the whole text
  always  // at the beginning of every stretch between added tokens
};

struct Metaspace {
  SpacePrefix prefix = SpacePrefix::first;
};

// The stretch of a text that begins there at byte `base`. A text that begins with a space, or with
// U+2581 itself, gets no further one. What is put before it counts to its first character.
MappedText spelled_with_marks(std::string_view text, std::size_t base, Metaspace spaces);

// The way back, for the pieces of a vocabulary with byte tokens ("<0x0A>"): marks to spaces, runs
// of bytes to text (each byte to U+FFFD where they are none), without the space at the very
// beginning if one is put there.
std::string read_pieces(const std::vector<std::string_view>& pieces, Metaspace spaces);

// "<0x0A>", as the vocabulary spells a byte.
std::string byte_piece(std::uint8_t byte);

}  // namespace medvqa::text_detail
