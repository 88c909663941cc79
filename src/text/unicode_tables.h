// Unicode as the reference tokenizer knows it, whatever the versions of the libraries here.
// The ranges are sorted and inclusive.
#pragma once

#include <algorithm>
#include <span>

namespace medvqa::text_detail {

struct CodePointRange {
  char32_t first;
  char32_t last;
};

std::span<const CodePointRange> letters();      // \p{L}
std::span<const CodePointRange> numbers();      // \p{N}
std::span<const CodePointRange> nfc_active();   // NFC may change, move or join these
std::span<const CodePointRange> nfc_joining();  // ... to what stands before them

inline bool contains(std::span<const CodePointRange> ranges, char32_t c) {
  const auto after = std::upper_bound(
      ranges.begin(), ranges.end(), c,
      [](char32_t value, const CodePointRange& range) { return value < range.first; });
  return after != ranges.begin() && c <= std::prev(after)->last;
}

}  // namespace medvqa::text_detail
