// Byte-pair encoding (Sennrich et al. 2016): a word starts as its bytes (as in GPT-2), or as its
// characters with bytes for those the vocabulary lacks (as in SentencePiece), and the neighbours
// with the lowest merge rank, leftmost first, are joined until none is left.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace medvqa::text_detail {

struct Merge {
  std::int32_t rank = 0;
  std::int32_t joined = 0;  // id of the token the two make
};

// The vocabulary and merges of the file, as ids.
struct BpeTables {
  std::array<std::int32_t, 256> byte_ids{};
  std::unordered_map<std::string, std::int32_t> characters;   // empty: a word starts as bytes
  std::unordered_map<std::uint64_t, Merge> merges;            // pair_key -> merge
  std::unordered_map<std::string, std::int32_t> whole_words;  // filled for ignore_merges only
  std::vector<std::uint32_t> token_bytes;                     // length of every token, by id
};

inline std::uint64_t pair_key(std::int32_t left, std::int32_t right) {
  return (static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32) |
         static_cast<std::uint32_t>(right);
}

// Time O(n log n) in the bytes of a word. Safe to call from several threads.
class Bpe {
 public:
  explicit Bpe(BpeTables tables);

  // Appends the ids of one word (a piece of the pre-tokeniser's), given as raw bytes.
  void encode(std::string_view word, std::vector<std::int32_t>& ids) const;
  std::size_t bytes_of(std::int32_t id) const {
    return tables_.token_bytes[static_cast<std::size_t>(id)];
  }

 private:
  std::vector<std::int32_t> symbols(std::string_view word) const;
  std::vector<std::int32_t> merge(std::string_view word) const;

  BpeTables tables_;
  mutable std::unique_ptr<std::mutex> lock_ = std::make_unique<std::mutex>();
  mutable std::unordered_map<std::string, std::vector<std::int32_t>> cache_;
};

}  // namespace medvqa::text_detail
