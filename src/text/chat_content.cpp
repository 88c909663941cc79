#include "src/text/chat_content.h"

#include "medvqa/core/error.h"
#include "src/text/split_regex.h"
#include "src/text/utf8.h"

namespace medvqa::text_detail {
namespace {

// The separators U+001C to U+001F are white space to Python.
bool is_blank(char32_t c) {
  return is_space_character(c) || (c >= 0x1c && c <= 0x1f);
}

}  // namespace

std::string_view trimmed(std::string_view text) {
  std::size_t begin = 0;
  while (begin < text.size()) {
    const CodePoint next = decode_at(text, begin);
    if (!next.valid || !is_blank(next.value)) break;
    begin += next.bytes;
  }
  text.remove_prefix(begin);
  while (!text.empty()) {
    const std::size_t last = previous_boundary(text, text.size());
    const CodePoint c = decode_at(text, last);
    const bool whole = c.valid && last + c.bytes == text.size();
    if (!whole || !is_blank(c.value)) break;
    text = text.substr(0, last);
  }
  return text;
}

std::string plain_content(const ChatMessage& message) {
  std::string content;
  for (const ContentPart& part : message.content) {
    MEDVQA_CHECK(part.kind == ContentPart::Kind::text, "a text model's messages are text");
    content += part.text;
  }
  return content;
}

}  // namespace medvqa::text_detail
