// Normalisation form C with a map back to the text it came from.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "medvqa/text/span.h"

namespace medvqa::text_detail {

// Text that may have been normalised. While nothing changed, `origins` is empty and every byte is
// its own origin; else origins[i] is the byte range of the original that byte i came from: the byte
// itself, or the whole cluster (a letter and the marks on it) if NFC changed that.
struct MappedText {
  std::string text;
  std::vector<Span> origins;

  // The range of the original for bytes [begin, end) of text, end > begin.
  Span origin_of(std::size_t begin, std::size_t end) const {
    if (origins.empty()) return {begin, end};
    return {origins[begin].begin, origins[end - 1].end};
  }
};

// Valid UTF-8 to NFC as the reference knows it (see unicode_tables.h): marks assigned after its
// Unicode version do not combine and are not reordered.
MappedText to_nfc(std::string_view text);

}  // namespace medvqa::text_detail
