#include "src/text/nfc.h"

#include <utf8proc.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <memory>

#include "medvqa/core/error.h"
#include "src/text/unicode_tables.h"
#include "src/text/utf8.h"

namespace medvqa::text_detail {
namespace {

bool is_ascii(std::string_view text) {
  for (const char c : text) {
    if (static_cast<unsigned char>(c) >= 0x80) return false;
  }
  return true;
}

std::string compose(std::string_view cluster) {
  constexpr auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
  utf8proc_uint8_t* bytes = nullptr;
  const utf8proc_ssize_t length =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(cluster.data()),
                   static_cast<utf8proc_ssize_t>(cluster.size()), &bytes, options);
  const std::unique_ptr<utf8proc_uint8_t, void (*)(void*)> owner(bytes, std::free);
  MEDVQA_CHECK(length >= 0, "utf8proc refuses valid UTF-8");
  return {reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(length)};
}

// Where the cluster that begins at `begin` ends: a code point and the joining ones after it, or a
// single code point that NFC never touches.
std::size_t cluster_end(std::string_view text, std::size_t begin) {
  const CodePoint first = decode_at(text, begin);
  std::size_t end = begin + first.bytes;
  if (!contains(nfc_active(), first.value)) return end;
  while (end < text.size() && static_cast<unsigned char>(text[end]) >= 0x80) {
    const CodePoint next = decode_at(text, end);
    if (!contains(nfc_joining(), next.value)) break;
    end += next.bytes;
  }
  return end;
}

class Builder {
 public:
  explicit Builder(std::string_view text) : text_(text) { result_.text.reserve(text.size()); }

  void keep(std::size_t begin, std::size_t end) {
    result_.text += text_.substr(begin, end - begin);
    if (!changed_) return;
    for (std::size_t i = begin; i < end; ++i) result_.origins.push_back({i, i + 1});
  }

  void replace(std::size_t begin, std::size_t end, std::string_view by) {
    if (!changed_) {
      changed_ = true;
      for (std::size_t i = 0; i < begin; ++i) result_.origins.push_back({i, i + 1});
    }
    result_.text += by;
    result_.origins.insert(result_.origins.end(), by.size(), Span{begin, end});
  }

  MappedText take() { return std::move(result_); }

 private:
  std::string_view text_;
  MappedText result_;
  bool changed_ = false;
};

}  // namespace

MappedText to_nfc(std::string_view text) {
  if (is_ascii(text)) return {std::string(text), {}};
  Builder builder(text);
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = cluster_end(text, begin);
    const std::string_view cluster = text.substr(begin, end - begin);
    const bool may_change =
        !is_ascii(cluster) && contains(nfc_active(), decode_at(text, begin).value);
    const std::string composed = may_change ? compose(cluster) : std::string();
    if (!may_change || composed == cluster) {
      builder.keep(begin, end);
    } else {
      builder.replace(begin, end, composed);
    }
    begin = end;
  }
  return builder.take();
}

}  // namespace medvqa::text_detail
