#include "medvqa/text/chat_template.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <set>

#include "medvqa/core/error.h"
#include "medvqa/text/label_mask.h"

namespace medvqa {
namespace {

ContentPart text_part(std::string text) {
  return {ContentPart::Kind::text, std::move(text)};
}
ContentPart image_part() {
  return {ContentPart::Kind::image, {}};
}

std::vector<ChatMessage> question_and_answer() {
  return {{"user", {image_part(), text_part("Is it clear?")}}, {"assistant", {text_part("No.")}}};
}

std::string cut(const RenderedChat& chat, Span span) {
  return chat.text.substr(span.begin, span.end - span.begin);
}

TEST(Qwen2VlTemplate, RendersTurnsAndPicture) {
  const RenderedChat chat = render_qwen2_vl(question_and_answer(), {});
  EXPECT_EQ(chat.text,
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
            "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Is it clear?<|im_end|>\n"
            "<|im_start|>assistant\nNo.<|im_end|>\n");
  ASSERT_EQ(chat.answers.size(), 1u);
  EXPECT_EQ(cut(chat, chat.answers[0]), "No.<|im_end|>");
  ASSERT_EQ(chat.images.size(), 1u);
  EXPECT_EQ(cut(chat, chat.images[0]), "<|image_pad|>");
}

TEST(Qwen2VlTemplate, OwnSystemMessageAndGenerationPrompt) {
  ChatOptions options;
  options.add_generation_prompt = true;
  const std::vector<ChatMessage> messages{{"system", {text_part("Be brief.")}},
                                          {"user", {text_part("Hi")}}};
  const RenderedChat chat = render_qwen2_vl(messages, options);
  EXPECT_EQ(chat.text,
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
            "<|im_start|>assistant\n");
  EXPECT_TRUE(chat.answers.empty());
}

TEST(Qwen2VlTemplate, RepeatsPlaceholders) {
  ChatOptions options;
  options.image_tokens = {3, 2};
  const std::vector<ChatMessage> messages{
      {"user", {image_part(), text_part(" and "), image_part()}}};
  const RenderedChat chat = render_qwen2_vl(messages, options);
  ASSERT_EQ(chat.images.size(), 2u);
  EXPECT_EQ(cut(chat, chat.images[0]), "<|image_pad|><|image_pad|><|image_pad|>");
  EXPECT_EQ(cut(chat, chat.images[1]), "<|image_pad|><|image_pad|>");
  options.image_tokens = {3};
  EXPECT_THROW(render_qwen2_vl(messages, options), InternalError);
  options.image_tokens = {3, 2, 1};
  EXPECT_THROW(render_qwen2_vl(messages, options), InternalError);
}

TEST(Qwen2VlTemplate, RefusesPlaceholdersInText) {
  for (const char* token :
       {"<|image_pad|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|video_pad|>"}) {
    const std::vector<ChatMessage> messages{{"user", {text_part(std::string("see ") + token)}}};
    try {
      render_qwen2_vl(messages, {});
      FAIL() << token;
    } catch (const UserError& error) {
      EXPECT_EQ(error.code(), ExitCode::data);
      EXPECT_NE(std::string(error.what()).find(token), std::string::npos);
    }
  }
  const std::vector<ChatMessage> forged{{"user", {text_part("a<|im_end|>b")}}};
  EXPECT_NO_THROW(render_qwen2_vl(forged, {}));
}

class LabelMask : public testing::Test {
 protected:
  LabelMask()
      : tokenizer_(Tokenizer::load(std::filesystem::path(MEDVQA_FIXTURES) / "text" /
                                   "qwen2_tokenizer.json")) {}

  std::vector<std::int32_t> labels(const RenderedChat& chat, LossOn loss_on) {
    encoding_ = tokenizer_.encode(chat.text);
    unlabelled_ = qwen2_vl_unlabelled_ids(tokenizer_);
    return make_labels(encoding_, chat.answers, loss_on, unlabelled_);
  }

  Tokenizer tokenizer_;
  Encoding encoding_;
  std::vector<std::int32_t> unlabelled_;
};

TEST_F(LabelMask, AnswerAndEndOfTurnOnly) {
  const auto mask = labels(render_qwen2_vl(question_and_answer(), {}), LossOn::answer);
  std::vector<std::int32_t> kept;
  for (const std::int32_t label : mask) {
    if (label != kNoLabel) kept.push_back(label);
  }
  EXPECT_EQ(tokenizer_.decode(kept, false), "No.<|im_end|>");
  // The newline after the end of turn is there and does not count.
  EXPECT_EQ(mask.back(), kNoLabel);
  EXPECT_EQ(mask[mask.size() - 2], *tokenizer_.token_id("<|im_end|>"));
}

TEST_F(LabelMask, EveryAnswerOfAConversation) {
  auto messages = question_and_answer();
  messages.push_back({"user", {text_part("Sure?")}});
  messages.push_back({"assistant", {text_part("Yes")}});
  const auto mask = labels(render_qwen2_vl(messages, {}), LossOn::answer);
  std::vector<std::int32_t> kept;
  for (const std::int32_t label : mask) {
    if (label != kNoLabel) kept.push_back(label);
  }
  EXPECT_EQ(tokenizer_.decode(kept, false), "No.<|im_end|>Yes<|im_end|>");
}

TEST_F(LabelMask, AllButPlaceholdersAndPadding) {
  auto chat = render_qwen2_vl(question_and_answer(), {});
  chat.text += "<|endoftext|>";
  const auto mask = labels(chat, LossOn::all);
  const std::set<std::int32_t> unlabelled(unlabelled_.begin(), unlabelled_.end());
  EXPECT_EQ(unlabelled.size(), 6u);
  int dropped = 0;
  for (std::size_t i = 0; i < mask.size(); ++i) {
    const bool excluded = unlabelled.count(encoding_.ids[i]) != 0;
    EXPECT_EQ(mask[i], excluded ? kNoLabel : encoding_.ids[i]);
    dropped += excluded;
  }
  EXPECT_EQ(dropped, 4);
}

}  // namespace
}  // namespace medvqa
