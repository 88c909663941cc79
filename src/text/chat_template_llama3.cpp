#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "medvqa/core/error.h"
#include "medvqa/text/chat_template.h"
#include "src/text/chat_content.h"

namespace medvqa {
namespace {

constexpr std::string_view kBegin = "<|begin_of_text|>";
constexpr std::string_view kEnd = "<|eot_id|>";
constexpr std::string_view kImage = "<|image|>";
constexpr std::string_view kPadding = "<|finetune_right_pad_id|>";
constexpr std::string_view kSpaces = " \t\n\r\f\v";

void check_text(std::string_view text) {
  const std::size_t at = text.find(kImage);
  if (at == std::string_view::npos) return;
  throw UserError(ExitCode::data,
                  fmt::format("text of a sample: found {} at offset {}, expected text without the "
                              "model's vision tokens; remove it from the dataset",
                              kImage, at));
}

std::string header(std::string_view role) {
  return fmt::format("<|start_header_id|>{}<|end_header_id|>\n\n", role);
}

bool has_image(const std::vector<ChatMessage>& messages) {
  return std::any_of(messages.begin(), messages.end(), [](const ChatMessage& m) {
    return std::any_of(m.content.begin(), m.content.end(), [](const ContentPart& part) {
      return part.kind == ContentPart::Kind::image;
    });
  });
}

// The system's text as the template trims it; empty without such a message.
std::string system_text(const std::vector<ChatMessage>& messages) {
  if (messages.empty() || messages.front().role != "system") return {};
  std::string text;
  for (const ContentPart& part : messages.front().content) text += part.text;
  check_text(text);
  const std::size_t begin = text.find_first_not_of(kSpaces);
  if (begin == std::string::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpaces) + 1 - begin);
}

// What opens the system's message in models that know a date, and its text behind that.
std::string dated_system(const ChatOptions& options, std::string_view text) {
  return fmt::format("{}Cutting Knowledge Date: December 2023\nToday Date: {}\n\n{}{}",
                     header("system"), options.date, text, kEnd);
}

std::string trimmed_content(const ChatMessage& message) {
  return std::string(text_detail::trimmed(text_detail::plain_content(message)));
}

RenderedChat render_text(const std::vector<ChatMessage>& messages, const ChatOptions& options,
                         bool dated) {
  RenderedChat chat;
  chat.text = kBegin;
  const bool has_system = !messages.empty() && messages.front().role == "system";
  if (dated) {
    chat.text += dated_system(options, has_system ? trimmed_content(messages.front()) : "");
  }
  for (std::size_t i = dated && has_system ? 1 : 0; i < messages.size(); ++i) {
    chat.text += header(messages[i].role);
    const std::size_t begin = chat.text.size();
    chat.text += trimmed_content(messages[i]);
    chat.text += kEnd;
    if (messages[i].role == "assistant") chat.answers.push_back({begin, chat.text.size()});
  }
  if (options.add_generation_prompt) chat.text += header("assistant");
  return chat;
}

void add_message(const ChatMessage& message, RenderedChat& chat) {
  check_text(message.role);
  chat.text += header(message.role);
  const std::size_t begin = chat.text.size();
  for (const ContentPart& part : message.content) {
    if (part.kind == ContentPart::Kind::image) {
      chat.images.push_back({chat.text.size(), chat.text.size() + kImage.size()});
      chat.text += kImage;
    } else {
      check_text(part.text);
      chat.text += part.text;
    }
  }
  chat.text += kEnd;
  if (message.role == "assistant") chat.answers.push_back({begin, chat.text.size()});
}

}  // namespace

RenderedChat render_llama3_vision(const std::vector<ChatMessage>& messages,
                                  const ChatOptions& options) {
  RenderedChat chat;
  chat.text = kBegin;
  const std::string system = system_text(messages);
  if (!has_image(messages)) {
    chat.text += dated_system(options, system);
  } else if (!system.empty()) {
    throw UserError(ExitCode::config,
                    "data.system: found a text, expected null: Llama 3.2 Vision takes no system "
                    "message beside a picture; put it into data.prompt");
  }
  const bool has_system = !messages.empty() && messages.front().role == "system";
  for (std::size_t i = has_system ? 1 : 0; i < messages.size(); ++i) add_message(messages[i], chat);
  if (options.add_generation_prompt) chat.text += header("assistant");
  MEDVQA_CHECK(std::all_of(options.image_tokens.begin(), options.image_tokens.end(),
                           [](std::int64_t n) { return n == 1; }),
               "a picture is one token");
  return chat;
}

RenderedChat render_llama3(const std::vector<ChatMessage>& messages, const ChatOptions& options) {
  return render_text(messages, options, /*dated=*/false);
}

RenderedChat render_llama31(const std::vector<ChatMessage>& messages, const ChatOptions& options) {
  return render_text(messages, options, /*dated=*/true);
}

std::vector<std::int32_t> llama3_vision_unlabelled_ids(const Tokenizer& tokenizer) {
  std::vector<std::int32_t> ids;
  for (const std::string_view token : {kPadding, kImage}) {
    if (const auto id = tokenizer.token_id(token)) ids.push_back(*id);
  }
  return ids;
}

}  // namespace medvqa
