#include <algorithm>
#include <array>

#include "medvqa/core/error.h"
#include "medvqa/text/chat_template.h"
#include "src/text/chat_content.h"

namespace medvqa {
namespace {

using text_detail::plain_content;
using text_detail::trimmed;

// A template by what it writes: every expression that puts out or prepares text, without the blanks
// outside of quotes, and how many there are that put out any. Zephyr's line breaks between turns
// are the template's own.
struct KnownTemplate {
  RenderChat render;
  std::size_t outputs;
  std::array<std::string_view, 4> expressions;
};
constexpr std::array kKnown = {
    KnownTemplate{
        render_llama2,
        3,
        {R"({%setcontent='<<SYS>>\n'+system_message+'\n<</SYS>>\n\n'+message['content']%})",
         "{%setcontent=message['content']%}", "{{bos_token+'[INST] '+content.strip()+' [/INST]'}}",
         "{{' '+content.strip()+' '+eos_token}}"}},
    KnownTemplate{
        render_zephyr,
        4,
        {"{{'<|user|>\\n'+message['content']+eos_token}}\n",
         "{{'<|system|>\\n'+message['content']+eos_token}}\n",
         "{{'<|assistant|>\\n'+message['content']+eos_token}}\n", "{{'<|assistant|>'}}\n"}},
};

std::size_t count(std::string_view text, std::string_view part) {
  std::size_t found = 0;
  for (std::size_t at = text.find(part); at != std::string_view::npos; at = text.find(part, at)) {
    ++found;
    at += part.size();
  }
  return found;
}

std::string without_blanks(std::string_view jinja) {
  std::string text;
  bool quoted = false;
  for (const char c : jinja) {
    if (c == '\'') quoted = !quoted;
    if (quoted || c != ' ') text += c;
  }
  return text;
}

}  // namespace

RenderedChat render_llama2(const std::vector<ChatMessage>& messages, const ChatOptions& options) {
  RenderedChat chat;
  std::string system;
  for (const ChatMessage& message : messages) {
    const std::string content = plain_content(message);
    if (message.role == "system") {
      MEDVQA_CHECK(chat.text.empty(), "the system speaks first");
      system = "<<SYS>>\n" + content + "\n<</SYS>>\n\n";
    } else if (message.role == "user") {
      chat.text += options.begin_token + "[INST] ";
      chat.text += trimmed(system + content);
      chat.text += " [/INST]";
      system.clear();
    } else {
      const std::size_t begin = chat.text.size();
      chat.text += ' ';
      chat.text += trimmed(content);
      chat.text += ' ' + options.end_token;
      chat.answers.push_back({begin, chat.text.size()});
    }
  }
  return chat;
}

RenderedChat render_zephyr(const std::vector<ChatMessage>& messages, const ChatOptions& options) {
  RenderedChat chat;
  for (const ChatMessage& message : messages) {
    chat.text += "<|" + message.role + "|>\n";
    const std::size_t begin = chat.text.size();
    chat.text += plain_content(message) + options.end_token;
    if (message.role == "assistant") chat.answers.push_back({begin, chat.text.size()});
    chat.text += '\n';
  }
  if (options.add_generation_prompt) chat.text += "<|assistant|>\n";
  return chat;
}

RenderChat recognise_chat_template(std::string_view jinja) {
  const std::string text = without_blanks(jinja);
  for (const KnownTemplate& known : kKnown) {
    const bool has_all = std::all_of(
        known.expressions.begin(), known.expressions.end(),
        [&text](std::string_view part) { return text.find(part) != std::string::npos; });
    if (has_all && count(text, "{{") == known.outputs) return known.render;
  }
  return nullptr;
}

}  // namespace medvqa
