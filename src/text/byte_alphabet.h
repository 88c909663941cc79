// GPT-2's alphabet: every byte as one printable character, the way tokenizer.json writes tokens.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace medvqa::text_detail {

std::string bytes_to_letters(std::string_view bytes);

// Nothing if a character of the text does not stand for a byte.
std::optional<std::string> letters_to_bytes(std::string_view text);

}  // namespace medvqa::text_detail
