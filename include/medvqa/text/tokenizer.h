// Byte-level BPE from a Hugging Face tokenizer.json, and the tokenizers of Llama 2 and its kin from
// the files that LlamaTokenizer reads, equal to `tokenizers` 0.23.3 and transformers 5.17 token for
// token.
//
// Read of tokenizer.json: added tokens with all their flags; normalizer null, NFC, or a Sequence of
// those; pre_tokenizer ByteLevel (use_regex true: GPT-2's expression), or a Sequence of
// Split(Regex, Isolated) and ByteLevel (add_prefix_space false); model BPE with merges in either
// spelling and ignore_merges; decoder ByteLevel. Anything else in these places is an error, not a
// guess. Read of a SentencePiece folder: tokenizer_config.json with added_tokens_decoder, the named
// and further special tokens, legacy and add_prefix_space; vocabulary and merges of tokenizer.json
// if it is there, else those that transformers makes of tokenizer.model, in the order of ids
// whatever the scores. Normalisation rules inside tokenizer.model are not applied, as
// LlamaTokenizer applies none. A vocabulary must have a token for every byte.
//
// Not applied by encode(): post_processor (the chat template writes special tokens), truncation,
// padding.
//
// What counts as a letter or number and which marks combine is pinned to the reference's Unicode
// versions, whatever the libraries installed here know (src/text/unicode_tables.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "medvqa/text/span.h"

namespace medvqa {

// Tokens of a text. offsets[i] is the byte range of the text given that token i stands for:
// exactly its bytes (which may be part of a character) where NFC changes nothing, and where it
// does, the whole cluster (a letter with the marks on it) it comes from. Both ends never decrease.
struct Encoding {
  std::vector<std::int32_t> ids;
  std::vector<Span> offsets;
};

// The special tokens that stand around a text which no chat template has written.
struct SpecialTokens {
  std::vector<std::int32_t> before, after;
};

class Tokenizer {
 public:
  // A byte-level one. Errors: UserError(model), naming file and key.
  static Tokenizer load(const std::filesystem::path& tokenizer_json);
  // A model folder's, of either kind: LlamaTokenizer's is a tokenizer.json with byte_fallback, or
  // none beside a tokenizer.model. Errors: UserError(model), also if there is neither file.
  static Tokenizer load_folder(const std::filesystem::path& folder);

  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  // Special tokens written in the text become their ids, as in the reference. Safe to call from
  // several threads. Errors: UserError(data) if the text is not UTF-8.
  Encoding encode(std::string_view utf8) const;

  // What post_processor's TemplateProcessing puts around a single text (add_special_tokens=True of
  // the reference); nothing without one. Beside a tokenizer.model alone, what add_bos_token and
  // add_eos_token of tokenizer_config.json say; with a tokenizer.json they do not count. Errors:
  // UserError(model) for a post_processor that is not TemplateProcessing, ByteLevel or a Sequence
  // of them.
  SpecialTokens special_tokens() const;

  // Ids to text; invalid UTF-8 becomes U+FFFD, ids outside the vocabulary nothing.
  std::string decode(std::span<const std::int32_t> ids, bool skip_special) const;

  // Whether it is LlamaTokenizer's kind.
  bool is_sentencepiece() const;

  // The id of a token as the file writes it (" the" is "Ġthe"), added tokens included.
  std::optional<std::int32_t> token_id(std::string_view token) const;

  // The highest id + 1, added tokens included. A model's embedding may have more rows.
  std::int64_t vocab_size() const;

 private:
  struct State;
  explicit Tokenizer(std::unique_ptr<const State> state);
  std::unique_ptr<const State> state_;
};

}  // namespace medvqa
