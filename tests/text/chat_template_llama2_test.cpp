#include <gtest/gtest.h>

#include "medvqa/text/chat_template.h"

namespace medvqa {
namespace {

ChatMessage message(const std::string& role, const std::string& text) {
  return {role, {{ContentPart::Kind::text, text}}};
}

std::string answer_of(const RenderedChat& chat, std::size_t i) {
  const Span& span = chat.answers.at(i);
  return chat.text.substr(span.begin, span.end - span.begin);
}

const std::vector<ChatMessage> kTalk = {
    message("system", " Be brief. "), message("user", "\tWhat is it?\n"),
    message("assistant", " A film "), message("user", "Sure?"), message("assistant", "yes")};

TEST(ChatTemplateLlama2, WritesTurnsAsTheModelLearnt) {
  const RenderedChat chat = render_llama2(kTalk, {});
  EXPECT_EQ(chat.text,
            "<s>[INST] <<SYS>>\n Be brief. \n<</SYS>>\n\n\tWhat is it? [/INST] A film </s>"
            "<s>[INST] Sure? [/INST] yes </s>");
  ASSERT_EQ(chat.answers.size(), 2u);
  EXPECT_EQ(answer_of(chat, 0), " A film </s>");
  EXPECT_EQ(answer_of(chat, 1), " yes </s>");
  EXPECT_TRUE(chat.images.empty());
  ChatOptions options;
  options.begin_token = "<b>";
  options.end_token = "<e>";
  options.add_generation_prompt = true;
  EXPECT_EQ(render_llama2({message("user", " q ")}, options).text, "<b>[INST] q [/INST]");
}

TEST(ChatTemplateZephyr, WritesTurnsAsTheModelLearnt) {
  const RenderedChat chat = render_zephyr(kTalk, {});
  EXPECT_EQ(
      chat.text,
      "<|system|>\n Be brief. </s>\n<|user|>\n\tWhat is it?\n</s>\n<|assistant|>\n A film </s>\n"
      "<|user|>\nSure?</s>\n<|assistant|>\nyes</s>\n");
  ASSERT_EQ(chat.answers.size(), 2u);
  EXPECT_EQ(answer_of(chat, 0), " A film </s>");
  EXPECT_EQ(answer_of(chat, 1), "yes</s>");
  ChatOptions options;
  options.end_token = "<e>";
  options.add_generation_prompt = true;
  EXPECT_EQ(render_zephyr({message("user", "q")}, options).text, "<|user|>\nq<e>\n<|assistant|>\n");
}

constexpr const char* kLlama2 =
    "{% if messages[0]['role'] == 'system' %}{% set system_message = messages[0]['content'] %}"
    "{% endif %}{% for message in messages %}"
    "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{% set content = message['content'] %}{{ raise_exception('Roles  must alternate') }}"
    "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{{ ' '  + content.strip() + ' ' + eos_token }}{% endfor %}";
constexpr const char* kZephyr =
    "{% for message in messages %}\n{{ '<|user|>\\n' + message['content'] + eos_token }}\n"
    "{{ '<|system|>\\n' + message['content'] + eos_token }}\n"
    "{{ '<|assistant|>\\n'  + message['content'] + eos_token }}\n{{ '<|assistant|>' }}\n{% endfor "
    "%}";

std::string changed(std::string text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(RecogniseChatTemplate, TellsTheTwoAndNothingElse) {
  EXPECT_EQ(recognise_chat_template(kLlama2), &render_llama2);
  EXPECT_EQ(recognise_chat_template(kZephyr), &render_zephyr);
  for (const std::string& other :
       {std::string(), std::string("{{ messages }}"), changed(kLlama2, "' '  +", "'' +"),
        changed(kLlama2, "content.strip() + ' [/INST]'", "content + ' [/INST]'"),
        changed(kLlama2, "bos_token + ", ""), changed(kLlama2, "{% endfor %}", "{{ 'x' }}"),
        changed(kLlama2, "'<<SYS>>\\n'", "'<<SYS>>'"),
        changed(kZephyr, "eos_token }}\n", "eos_token }}"),
        changed(kZephyr, "<|assistant|>\\n", "<|assistant|>"),
        changed(kZephyr, "message['content']", "message['content'] | trim")}) {
    EXPECT_EQ(recognise_chat_template(other), nullptr) << other;
  }
}

}  // namespace
}  // namespace medvqa
