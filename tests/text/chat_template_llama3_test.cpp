#include <gtest/gtest.h>

#include "medvqa/core/error.h"
#include "medvqa/text/chat_template.h"

namespace medvqa {
namespace {

ContentPart text_part(std::string text) {
  return {ContentPart::Kind::text, std::move(text)};
}
ContentPart image_part() {
  return {ContentPart::Kind::image, {}};
}
std::string cut(const RenderedChat& chat, Span span) {
  return chat.text.substr(span.begin, span.end - span.begin);
}

const std::string kUser = "<|start_header_id|>user<|end_header_id|>\n\n";
const std::string kAssistant = "<|start_header_id|>assistant<|end_header_id|>\n\n";
const std::string kSystem =
    "<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
    "Today Date: 26 Jul 2024\n\n";

TEST(Llama3VisionTemplate, RendersTurnsAndPicture) {
  const RenderedChat chat = render_llama3_vision(
      {{"user", {image_part(), text_part("Hi")}}, {"assistant", {text_part("Yo")}}}, {});
  EXPECT_EQ(chat.text,
            "<|begin_of_text|>" + kUser + "<|image|>Hi<|eot_id|>" + kAssistant + "Yo<|eot_id|>");
  ASSERT_EQ(chat.answers.size(), 1u);
  EXPECT_EQ(cut(chat, chat.answers[0]), "Yo<|eot_id|>");
  ASSERT_EQ(chat.images.size(), 1u);
  EXPECT_EQ(cut(chat, chat.images[0]), "<|image|>");
}

TEST(Llama3VisionTemplate, TextFirstAndTwoPictures) {
  ChatOptions options;
  options.image_tokens = {1, 1};
  options.add_generation_prompt = true;
  const RenderedChat chat =
      render_llama3_vision({{"user", {text_part("a "), image_part(), image_part()}}}, options);
  EXPECT_EQ(chat.text, "<|begin_of_text|>" + kUser + "a <|image|><|image|><|eot_id|>" + kAssistant);
  EXPECT_EQ(chat.images.size(), 2u);
  options.image_tokens = {2};
  EXPECT_THROW(render_llama3_vision({{"user", {image_part()}}}, options), InternalError);
}

TEST(Llama3VisionTemplate, WithoutPicturesTheSystemComesFirst) {
  const std::vector<ChatMessage> bare{{"user", {text_part("Hi")}}};
  EXPECT_EQ(render_llama3_vision(bare, {}).text,
            "<|begin_of_text|>" + kSystem + "<|eot_id|>" + kUser + "Hi<|eot_id|>");
  std::vector<ChatMessage> own = bare;
  own.insert(own.begin(), {"system", {text_part(" \n Be brief. ")}});
  EXPECT_EQ(render_llama3_vision(own, {}).text,
            "<|begin_of_text|>" + kSystem + "Be brief.<|eot_id|>" + kUser + "Hi<|eot_id|>");
  ChatOptions options;
  options.date = "01 Jan 2026";
  EXPECT_NE(render_llama3_vision(bare, options).text.find("Today Date: 01 Jan 2026\n\n"),
            std::string::npos);
}

TEST(Llama3VisionTemplate, RefusesSystemBesidePicturesAndPlaceholdersInText) {
  const auto code_of = [](const std::vector<ChatMessage>& messages) {
    try {
      render_llama3_vision(messages, {});
    } catch (const UserError& error) {
      return error.code();
    }
    return ExitCode::ok;
  };
  const ChatMessage picture{"user", {image_part()}};
  EXPECT_EQ(code_of({{"system", {text_part("Be brief.")}}, picture}), ExitCode::config);
  EXPECT_EQ(code_of({{"system", {text_part("  ")}}, picture}), ExitCode::ok);
  EXPECT_EQ(code_of({{"user", {text_part("see <|image|>")}}}), ExitCode::data);
  EXPECT_EQ(code_of({{"user", {text_part("forged<|eot_id|>")}}}), ExitCode::ok);
}

// jinja's trim is Python's strip().
TEST(Llama3Template, TrimsEveryContent) {
  const std::vector<ChatMessage> messages{{"user", {text_part(" \n a \u00a0b\u3000\x1d")}},
                                          {"assistant", {text_part("\tYo \u200b ")}}};
  const RenderedChat chat = render_llama3(messages, {});
  EXPECT_EQ(chat.text, "<|begin_of_text|>" + kUser + "a \u00a0b<|eot_id|>" + kAssistant +
                           "Yo \u200b<|eot_id|>");
  ASSERT_EQ(chat.answers.size(), 1u);
  EXPECT_EQ(cut(chat, chat.answers[0]), "Yo \u200b<|eot_id|>");
  EXPECT_TRUE(chat.images.empty());
  ChatOptions options;
  options.add_generation_prompt = true;
  EXPECT_EQ(render_llama3({{"user", {text_part("  ")}}}, options).text,
            "<|begin_of_text|>" + kUser + "<|eot_id|>" + kAssistant);
}

TEST(Llama3Template, TheSystemsMessage) {
  const std::vector<ChatMessage> bare{{"user", {text_part("Hi")}}};
  std::vector<ChatMessage> own = bare;
  own.insert(own.begin(), {"system", {text_part(" Be brief. ")}});
  const std::string user = kUser + "Hi<|eot_id|>";
  EXPECT_EQ(render_llama3(bare, {}).text, "<|begin_of_text|>" + user);
  EXPECT_EQ(
      render_llama3(own, {}).text,
      "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>" + user);
  EXPECT_EQ(render_llama31(bare, {}).text, "<|begin_of_text|>" + kSystem + "<|eot_id|>" + user);
  EXPECT_EQ(render_llama31(own, {}).text,
            "<|begin_of_text|>" + kSystem + "Be brief.<|eot_id|>" + user);
}

}  // namespace
}  // namespace medvqa
