#include "src/text/added_tokens.h"

#include <algorithm>
#include <utility>

#include "src/text/split_regex.h"
#include "src/text/utf8.h"

namespace medvqa::text_detail {
namespace {

bool touches_word(std::string_view text, std::size_t begin, std::size_t end) {
  if (begin > 0) {
    const CodePoint before = decode_at(text, previous_boundary(text, begin));
    if (is_word_character(before.value)) return true;
  }
  return end < text.size() && is_word_character(decode_at(text, end).value);
}

std::size_t skip_space_left(std::string_view text, std::size_t begin) {
  while (begin > 0) {
    const std::size_t before = previous_boundary(text, begin);
    if (!is_space_character(decode_at(text, before).value)) break;
    begin = before;
  }
  return begin;
}

std::size_t skip_space_right(std::string_view text, std::size_t end) {
  while (end < text.size()) {
    const CodePoint next = decode_at(text, end);
    if (!is_space_character(next.value)) break;
    end += next.bytes;
  }
  return end;
}

}  // namespace

void AddedTokenFinder::add(AddedToken token) {
  if (token.content.empty()) return;
  auto& list = by_first_byte_[static_cast<std::uint8_t>(token.content[0])];
  const auto place = std::find_if(list.begin(), list.end(), [&token](const AddedToken& other) {
    return other.content.size() < token.content.size();
  });
  list.insert(place, std::move(token));
  empty_ = false;
}

const AddedToken* AddedTokenFinder::longest_at(std::string_view text, std::size_t offset) const {
  for (const AddedToken& token : by_first_byte_[static_cast<std::uint8_t>(text[offset])]) {
    if (text.substr(offset, token.content.size()) == token.content) return &token;
  }
  return nullptr;
}

std::vector<Section> AddedTokenFinder::sections(std::string_view text) const {
  std::vector<Section> result;
  std::size_t done = 0;
  for (std::size_t at = 0; at < text.size() && !empty_;) {
    const AddedToken* token = longest_at(text, at);
    if (token == nullptr) {
      ++at;
      continue;
    }
    std::size_t begin = at;
    std::size_t end = at + token->content.size();
    at = end;
    if (token->single_word && touches_word(text, begin, end)) continue;
    if (token->lstrip) begin = std::max(skip_space_left(text, begin), done);
    if (token->rstrip) end = skip_space_right(text, end);
    if (done < begin) result.push_back({{done, begin}, std::nullopt});
    result.push_back({{begin, end}, token->id});
    done = end;
  }
  if (done < text.size()) result.push_back({{done, text.size()}, std::nullopt});
  return result;
}

}  // namespace medvqa::text_detail
