// What chat templates do to the text of a message. Internal to the text module.
#pragma once

#include <string>
#include <string_view>

#include "medvqa/text/chat_template.h"

namespace medvqa::text_detail {

// White space at both ends removed, as Python's strip() does it.
std::string_view trimmed(std::string_view text);

// The text of a message without pictures.
std::string plain_content(const ChatMessage& message);

}  // namespace medvqa::text_detail
