#include "src/text/bpe.h"

#include <queue>
#include <utility>

#include "src/text/utf8.h"

namespace medvqa::text_detail {
namespace {

constexpr std::size_t kCachedWords = 1 << 16;
constexpr std::size_t kCachedWordBytes = 64;

// The word's parts as a doubly linked list over their first bytes; a part that was joined to its
// left neighbour has the id -1.
struct Part {
  std::int32_t id;
  std::int32_t previous;
  std::int32_t next;
};

struct Candidate {
  std::int32_t rank;
  std::int32_t position;  // of the left part
  std::int32_t joined;

  // The queue gives the largest first; wanted is the lowest rank, then the leftmost.
  bool operator<(const Candidate& other) const {
    return rank != other.rank ? rank > other.rank : position > other.position;
  }
};

}  // namespace

Bpe::Bpe(BpeTables tables) : tables_(std::move(tables)) {}

// What a word starts as. The text is valid UTF-8.
std::vector<std::int32_t> Bpe::symbols(std::string_view word) const {
  std::vector<std::int32_t> ids;
  ids.reserve(word.size());
  const auto add_bytes = [&](std::string_view bytes) {
    for (const char byte : bytes) ids.push_back(tables_.byte_ids[static_cast<std::uint8_t>(byte)]);
  };
  if (tables_.characters.empty()) {
    add_bytes(word);
    return ids;
  }
  for (std::size_t i = 0; i < word.size();) {
    const std::string_view character = word.substr(i, decode_at(word, i).bytes);
    const auto known = tables_.characters.find(std::string(character));
    if (known != tables_.characters.end()) {
      ids.push_back(known->second);
    } else {
      add_bytes(character);
    }
    i += character.size();
  }
  return ids;
}

std::vector<std::int32_t> Bpe::merge(std::string_view word) const {
  std::vector<Part> parts;
  for (const std::int32_t id : symbols(word)) {
    const auto at = static_cast<std::int32_t>(parts.size());
    parts.push_back({id, at - 1, at + 1});
  }
  if (!parts.empty()) parts.back().next = -1;
  const auto size = static_cast<std::int32_t>(parts.size());
  const auto part = [&parts](std::int32_t i) -> Part& {
    return parts[static_cast<std::size_t>(i)];
  };
  std::priority_queue<Candidate> queue;
  const auto offer = [&](std::int32_t left) {
    if (left < 0 || part(left).next < 0) return;
    const auto found = tables_.merges.find(pair_key(part(left).id, part(part(left).next).id));
    if (found == tables_.merges.end()) return;
    queue.push({found->second.rank, left, found->second.joined});
  };
  for (std::int32_t i = 0; i < size; ++i) offer(i);
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Part& left = part(best.position);
    if (left.id < 0 || left.next < 0) continue;
    // The candidate is stale if its parts have changed since.
    const auto found = tables_.merges.find(pair_key(left.id, part(left.next).id));
    if (found == tables_.merges.end() || found->second.joined != best.joined) continue;
    Part& right = part(left.next);
    left.id = best.joined;
    left.next = right.next;
    right.id = -1;
    if (left.next >= 0) part(left.next).previous = best.position;
    offer(left.previous);
    offer(best.position);
  }
  std::vector<std::int32_t> ids;
  for (std::int32_t i = size > 0 ? 0 : -1; i >= 0; i = part(i).next) ids.push_back(part(i).id);
  return ids;
}

void Bpe::encode(std::string_view word, std::vector<std::int32_t>& ids) const {
  const bool cacheable = word.size() <= kCachedWordBytes;
  std::string key;
  if (cacheable || !tables_.whole_words.empty()) key = word;
  if (!tables_.whole_words.empty()) {
    const auto whole = tables_.whole_words.find(key);
    if (whole != tables_.whole_words.end()) {
      ids.push_back(whole->second);
      return;
    }
  }
  if (cacheable) {
    const std::lock_guard guard(*lock_);
    const auto known = cache_.find(key);
    if (known != cache_.end()) {
      ids.insert(ids.end(), known->second.begin(), known->second.end());
      return;
    }
  }
  const std::vector<std::int32_t> merged = merge(word);
  ids.insert(ids.end(), merged.begin(), merged.end());
  if (!cacheable) return;
  const std::lock_guard guard(*lock_);
  if (cache_.size() < kCachedWords) cache_.emplace(std::move(key), merged);
}

}  // namespace medvqa::text_detail
