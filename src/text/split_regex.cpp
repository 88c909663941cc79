#include "src/text/split_regex.h"

#include <fmt/format.h>
#include <oniguruma.h>

#include <mutex>

#include "medvqa/core/error.h"
#include "src/text/unicode_tables.h"
#include "src/text/utf8.h"

namespace medvqa::text_detail {
namespace {

const OnigUChar* bytes_of(std::string_view text) {
  return reinterpret_cast<const OnigUChar*>(text.data());
}

void start_library() {
  static std::once_flag once;
  std::call_once(once, [] {
    OnigEncoding encodings[] = {ONIG_ENCODING_UTF8};
    onig_initialize(encodings, 1);
  });
}

std::string message_of(int code, const OnigErrorInfo* info) {
  OnigUChar text[ONIG_MAX_ERROR_MESSAGE_LEN] = {};
  const int length = info == nullptr ? onig_error_code_to_str(text, code)
                                     : onig_error_code_to_str(text, code, info);
  return {reinterpret_cast<const char*>(text), static_cast<std::size_t>(length)};
}

std::string written_out(std::span<const CodePointRange> ranges) {
  std::string text;
  for (const CodePointRange& range : ranges) {
    text += fmt::format("\\x{{{:x}}}-\\x{{{:x}}}", static_cast<std::uint32_t>(range.first),
                        static_cast<std::uint32_t>(range.last));
  }
  return text;
}

struct RegionDeleter {
  void operator()(OnigRegion* region) const { onig_region_free(region, 1); }
};

}  // namespace

std::string pin_classes(std::string_view pattern) {
  std::string pinned;
  int brackets = 0;
  for (std::size_t i = 0; i < pattern.size();) {
    const std::string_view rest = pattern.substr(i);
    const bool letter = rest.substr(0, 5) == "\\p{L}";
    if (letter || rest.substr(0, 5) == "\\p{N}") {
      const std::string ranges = written_out(letter ? letters() : numbers());
      pinned += brackets > 0 ? ranges : "[" + ranges + "]";
      i += 5;
      continue;
    }
    const std::size_t taken = rest[0] == '\\' && rest.size() > 1 ? 2 : 1;
    if (rest[0] == '[') ++brackets;
    if (rest[0] == ']' && brackets > 0) --brackets;
    pinned += rest.substr(0, taken);
    i += taken;
  }
  return pinned;
}

struct SplitRegex::State {
  regex_t* regex = nullptr;
  ~State() {
    if (regex != nullptr) onig_free(regex);
  }
};

SplitRegex::~SplitRegex() = default;
SplitRegex::SplitRegex(SplitRegex&&) noexcept = default;
SplitRegex& SplitRegex::operator=(SplitRegex&&) noexcept = default;

SplitRegex::SplitRegex(std::string_view pattern, std::string_view origin)
    : state_(std::make_unique<State>()) {
  start_library();
  const std::string pinned = pin_classes(pattern);
  OnigErrorInfo info{};
  const int code = onig_new(&state_->regex, bytes_of(pinned), bytes_of(pinned) + pinned.size(),
                            ONIG_OPTION_NONE, ONIG_ENCODING_UTF8, ONIG_SYNTAX_DEFAULT, &info);
  if (code != ONIG_NORMAL) {
    throw UserError(ExitCode::model,
                    fmt::format("{}: found a pattern that Oniguruma refuses ({}), expected the "
                                "model's own tokenizer.json; download it again",
                                origin, message_of(code, &info)));
  }
}

std::vector<Span> SplitRegex::pieces(std::string_view text) const {
  const std::unique_ptr<OnigRegion, RegionDeleter> region(onig_region_new());
  const OnigUChar* begin = bytes_of(text);
  const OnigUChar* end = begin + text.size();
  std::vector<Span> result;
  std::size_t done = 0;
  std::size_t from = 0;
  while (from <= text.size()) {
    const auto found =
        onig_search(state_->regex, begin, end, begin + from, end, region.get(), ONIG_OPTION_NONE);
    if (found == ONIG_MISMATCH) break;
    if (found < 0) {
      throw UserError(ExitCode::data,
                      fmt::format("text of {} bytes: found a stretch the tokenizer's pattern does "
                                  "not get through ({}), expected ordinary text; shorten it",
                                  text.size(), message_of(static_cast<int>(found), nullptr)));
    }
    const auto match_begin = static_cast<std::size_t>(region->beg[0]);
    const auto match_end = static_cast<std::size_t>(region->end[0]);
    if (match_begin > done) result.push_back({done, match_begin});
    if (match_end > match_begin) result.push_back({match_begin, match_end});
    done = match_end;
    from = match_end;
    // An empty match must not be found again.
    if (match_end == match_begin) {
      from = match_end < text.size() ? match_end + decode_at(text, match_end).bytes : match_end + 1;
    }
  }
  if (done < text.size()) result.push_back({done, text.size()});
  return result;
}

bool is_word_character(char32_t c) {
  start_library();
  // The reference asks another library here, for which the joiners belong to words.
  if (c == 0x200c || c == 0x200d) return true;
  return ONIGENC_IS_CODE_WORD(ONIG_ENCODING_UTF8, static_cast<OnigCodePoint>(c));
}

bool is_space_character(char32_t c) {
  start_library();
  return ONIGENC_IS_CODE_SPACE(ONIG_ENCODING_UTF8, static_cast<OnigCodePoint>(c));
}

}  // namespace medvqa::text_detail
