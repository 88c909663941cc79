// A range of bytes in a text.
#pragma once

#include <cstddef>

namespace medvqa {

struct Span {
  std::size_t begin = 0;
  std::size_t end = 0;  // one past the last byte

  bool operator==(const Span&) const = default;
};

constexpr bool overlap(const Span& a, const Span& b) {
  return a.begin < b.end && b.begin < a.end;
}

}  // namespace medvqa
