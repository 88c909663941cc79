#include "src/text/metaspace.h"

#include <fmt/format.h>

#include <charconv>
#include <optional>

#include "src/text/utf8.h"

namespace medvqa::text_detail {
namespace {

constexpr std::string_view kMark = "\xe2\x96\x81";

std::optional<char> byte_of(std::string_view piece) {
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece[5] != '>') return std::nullopt;
  unsigned value = 0;
  const auto [end, error] = std::from_chars(piece.data() + 3, piece.data() + 5, value, 16);
  if (error != std::errc() || end != piece.data() + 5) return std::nullopt;
  return static_cast<char>(value);
}

void append_bytes(std::string& text, std::string& bytes) {
  if (!first_invalid(bytes)) {
    text += bytes;
  } else {
    for (std::size_t i = 0; i < bytes.size(); ++i) append(text, U'\uFFFD');
  }
  bytes.clear();
}

bool is_prefixed(std::string_view text, std::size_t base, Metaspace spaces) {
  if (text.empty() || spaces.prefix == SpacePrefix::never) return false;
  if (spaces.prefix == SpacePrefix::first && base > 0) return false;
  return text[0] != ' ' && !text.starts_with(kMark);
}

}  // namespace

MappedText spelled_with_marks(std::string_view text, std::size_t base, Metaspace spaces) {
  MappedText mapped;
  const auto add = [&mapped](std::string_view bytes, Span origin) {
    mapped.text += bytes;
    mapped.origins.insert(mapped.origins.end(), bytes.size(), origin);
  };
  if (is_prefixed(text, base, spaces)) add(kMark, {0, decode_at(text, 0).bytes});
  for (std::size_t i = 0; i < text.size(); ++i) {
    add(text[i] == ' ' ? kMark : text.substr(i, 1), {i, i + 1});
  }
  return mapped;
}

std::string read_pieces(const std::vector<std::string_view>& pieces, Metaspace spaces) {
  std::string text, bytes;
  for (const std::string_view piece : pieces) {
    if (const auto byte = byte_of(piece)) {
      bytes += *byte;
      continue;
    }
    append_bytes(text, bytes);
    for (std::size_t i = 0; i < piece.size();) {
      const bool is_mark = piece.substr(i).starts_with(kMark);
      text += is_mark ? ' ' : piece[i];
      i += is_mark ? kMark.size() : 1;
    }
  }
  append_bytes(text, bytes);
  if (spaces.prefix != SpacePrefix::never && text.starts_with(' ')) text.erase(0, 1);
  return text;
}

std::string byte_piece(std::uint8_t byte) {
  return fmt::format("<0x{:02X}>", byte);
}

}  // namespace medvqa::text_detail
