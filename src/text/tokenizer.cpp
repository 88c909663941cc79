#include "medvqa/text/tokenizer.h"

#include <fmt/format.h>

#include <unordered_set>
#include <utility>

#include "medvqa/core/error.h"
#include "src/text/byte_alphabet.h"
#include "src/text/nfc.h"
#include "src/text/sentencepiece_file.h"
#include "src/text/tokenizer_file.h"
#include "src/text/utf8.h"

namespace medvqa {

using text_detail::AddedToken;
using text_detail::AddedTokenFinder;
using text_detail::Bpe;
using text_detail::MappedText;
using text_detail::Section;

struct Tokenizer::State {
  explicit State(text_detail::TokenizerParts parts);

  void add_tokens(const MappedText& mapped, Span word, std::size_t base, Encoding& out) const;
  void encode_words(const MappedText& mapped, Span span, std::size_t base, Encoding& out) const;
  void encode_spelled(std::string_view text, std::size_t base, Encoding& out) const;
  void encode_text(std::string_view text, std::size_t base, Encoding& out) const;

  bool nfc;
  std::vector<text_detail::SplitRegex> splits;
  std::optional<text_detail::Metaspace> spaces;
  Bpe bpe;
  std::vector<std::string> tokens;
  std::unordered_map<std::string, std::int32_t> ids;
  AddedTokenFinder raw_finder;         // looks at the text as it came
  AddedTokenFinder normalised_finder;  // looks at what the normaliser leaves
  std::unordered_set<std::int32_t> special;
  text_detail::PostProcessor post_processor;
};

Tokenizer::State::State(text_detail::TokenizerParts parts)
    : nfc(parts.nfc),
      splits(std::move(parts.splits)),
      spaces(parts.spaces),
      bpe(std::move(parts.bpe)),
      tokens(std::move(parts.tokens)),
      ids(std::move(parts.ids)),
      post_processor(std::move(parts.post_processor)) {
  for (AddedToken& token : parts.added) {
    if (token.special) special.insert(token.id);
    if (token.normalized) {
      if (nfc) token.content = text_detail::to_nfc(token.content).text;
      tokens[static_cast<std::size_t>(token.id)] = token.content;
      normalised_finder.add(std::move(token));
    } else {
      raw_finder.add(std::move(token));
    }
  }
}

// The tokens of one word of mapped.text; `base` is where the mapped stretch begins in the original.
void Tokenizer::State::add_tokens(const MappedText& mapped, Span word, std::size_t base,
                                  Encoding& out) const {
  const std::size_t first = out.ids.size();
  bpe.encode(std::string_view(mapped.text).substr(word.begin, word.end - word.begin), out.ids);
  std::size_t begin = word.begin;
  for (std::size_t i = first; i < out.ids.size(); ++i) {
    const std::size_t end = begin + bpe.bytes_of(out.ids[i]);
    const Span origin = mapped.origin_of(begin, end);
    out.offsets.push_back({base + origin.begin, base + origin.end});
    begin = end;
  }
}

// Words of mapped.text within `span`.
void Tokenizer::State::encode_words(const MappedText& mapped, Span span, std::size_t base,
                                    Encoding& out) const {
  std::vector<Span> words{span};
  for (const text_detail::SplitRegex& split : splits) {
    std::vector<Span> finer;
    for (const Span& word : words) {
      const std::string_view text =
          std::string_view(mapped.text).substr(word.begin, word.end - word.begin);
      for (const Span& piece : split.pieces(text)) {
        finer.push_back({word.begin + piece.begin, word.begin + piece.end});
      }
    }
    words = std::move(finer);
  }
  for (const Span& word : words) add_tokens(mapped, word, base, out);
}

// A stretch of the original that is one word, its spaces written as marks.
void Tokenizer::State::encode_spelled(std::string_view text, std::size_t base,
                                      Encoding& out) const {
  const MappedText mapped = text_detail::spelled_with_marks(text, base, *spaces);
  add_tokens(mapped, {0, mapped.text.size()}, base, out);
}

// A stretch of the original without raw added tokens.
void Tokenizer::State::encode_text(std::string_view text, std::size_t base, Encoding& out) const {
  const MappedText mapped = nfc ? text_detail::to_nfc(text) : MappedText{std::string(text), {}};
  for (const Section& section : normalised_finder.sections(mapped.text)) {
    if (section.id) {
      const Span origin = mapped.origin_of(section.span.begin, section.span.end);
      out.ids.push_back(*section.id);
      out.offsets.push_back({base + origin.begin, base + origin.end});
    } else if (spaces) {
      encode_spelled(std::string_view(mapped.text)
                         .substr(section.span.begin, section.span.end - section.span.begin),
                     base + section.span.begin, out);
    } else {
      encode_words(mapped, section.span, base, out);
    }
  }
}

Tokenizer::Tokenizer(std::unique_ptr<const State> state) : state_(std::move(state)) {}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

Tokenizer Tokenizer::load(const std::filesystem::path& tokenizer_json) {
  return Tokenizer(std::make_unique<const State>(text_detail::read_tokenizer_file(tokenizer_json)));
}

Tokenizer Tokenizer::load_folder(const std::filesystem::path& folder) {
  return Tokenizer(std::make_unique<const State>(text_detail::read_tokenizer_folder(folder)));
}

bool Tokenizer::is_sentencepiece() const {
  return state_->spaces.has_value();
}

Encoding Tokenizer::encode(std::string_view utf8) const {
  if (const auto invalid = text_detail::first_invalid(utf8)) {
    throw UserError(ExitCode::data,
                    fmt::format("text of {} bytes: found a byte that is not UTF-8 at offset {}, "
                                "expected UTF-8; convert the dataset's text",
                                utf8.size(), *invalid));
  }
  Encoding encoding;
  for (const Section& section : state_->raw_finder.sections(utf8)) {
    if (section.id) {
      encoding.ids.push_back(*section.id);
      encoding.offsets.push_back(section.span);
    } else {
      state_->encode_text(utf8.substr(section.span.begin, section.span.end - section.span.begin),
                          section.span.begin, encoding);
    }
  }
  return encoding;
}

SpecialTokens Tokenizer::special_tokens() const {
  const text_detail::PostProcessor& p = state_->post_processor;
  if (!p.refused.empty()) throw UserError(ExitCode::model, p.refused);
  return {p.before, p.after};
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids, bool skip_special) const {
  std::vector<std::string_view> tokens;
  for (const std::int32_t id : ids) {
    if (id < 0 || static_cast<std::size_t>(id) >= state_->tokens.size()) continue;
    if (skip_special && state_->special.count(id) != 0) continue;
    tokens.push_back(state_->tokens[static_cast<std::size_t>(id)]);
  }
  if (state_->spaces) return text_detail::read_pieces(tokens, *state_->spaces);
  std::string bytes;
  for (const std::string_view token : tokens) {
    bytes += text_detail::letters_to_bytes(token).value_or(std::string(token));
  }
  return text_detail::replace_invalid(bytes);
}

std::optional<std::int32_t> Tokenizer::token_id(std::string_view token) const {
  const auto found = state_->ids.find(std::string(token));
  if (found == state_->ids.end()) return std::nullopt;
  return found->second;
}

std::int64_t Tokenizer::vocab_size() const {
  return static_cast<std::int64_t>(state_->tokens.size());
}

}  // namespace medvqa
