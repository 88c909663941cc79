#include "medvqa/text/chat_template.h"

#include <fmt/format.h>

#include <array>

#include "medvqa/core/error.h"

namespace medvqa {
namespace {

constexpr std::string_view kStart = "<|im_start|>";
constexpr std::string_view kEnd = "<|im_end|>";
constexpr std::string_view kPadding = "<|endoftext|>";
constexpr std::string_view kImage = "<|image_pad|>";
constexpr std::string_view kVisionStart = "<|vision_start|>";
constexpr std::string_view kVisionEnd = "<|vision_end|>";
constexpr std::array<std::string_view, 5> kPlaceholders = {kImage, kVisionStart, kVisionEnd,
                                                           "<|vision_pad|>", "<|video_pad|>"};
constexpr std::string_view kDefaultSystem = "You are a helpful assistant.";
constexpr std::int64_t kMostImageTokens = 1 << 20;

void check_text(std::string_view text) {
  for (const std::string_view placeholder : kPlaceholders) {
    const std::size_t at = text.find(placeholder);
    if (at == std::string_view::npos) continue;
    throw UserError(ExitCode::data,
                    fmt::format("text of a sample: found {} at offset {}, expected text without "
                                "the model's vision tokens; remove it from the dataset",
                                placeholder, at));
  }
}

class Renderer {
 public:
  explicit Renderer(const ChatOptions& options) : options_(options) {}

  void header(std::string_view role) { chat_.text += fmt::format("{}{}\n", kStart, role); }

  void message(const ChatMessage& message) {
    check_text(message.role);
    header(message.role);
    const std::size_t begin = chat_.text.size();
    for (const ContentPart& part : message.content) {
      if (part.kind == ContentPart::Kind::image) {
        image();
      } else {
        check_text(part.text);
        chat_.text += part.text;
      }
    }
    chat_.text += kEnd;
    if (message.role == "assistant") chat_.answers.push_back({begin, chat_.text.size()});
    chat_.text += '\n';
  }

  RenderedChat take() {
    MEDVQA_CHECK(
        options_.image_tokens.empty() || options_.image_tokens.size() == chat_.images.size(),
        "one number of placeholders for every picture");
    return std::move(chat_);
  }

 private:
  void image() {
    std::int64_t count = 1;
    if (!options_.image_tokens.empty()) {
      MEDVQA_CHECK(chat_.images.size() < options_.image_tokens.size(),
                   "one number of placeholders for every picture");
      count = options_.image_tokens[chat_.images.size()];
    }
    MEDVQA_CHECK(count > 0 && count <= kMostImageTokens, "a picture takes 1 to 2^20 tokens");
    chat_.text += kVisionStart;
    const std::size_t begin = chat_.text.size();
    for (std::int64_t i = 0; i < count; ++i) chat_.text += kImage;
    chat_.images.push_back({begin, chat_.text.size()});
    chat_.text += kVisionEnd;
  }

  const ChatOptions& options_;
  RenderedChat chat_;
};

}  // namespace

RenderedChat render_qwen2_vl(const std::vector<ChatMessage>& messages, const ChatOptions& options) {
  Renderer renderer(options);
  if (!messages.empty() && messages.front().role != "system") {
    renderer.message({"system", {{ContentPart::Kind::text, std::string(kDefaultSystem)}}});
  }
  for (const ChatMessage& message : messages) renderer.message(message);
  if (options.add_generation_prompt) renderer.header("assistant");
  return renderer.take();
}

std::vector<std::int32_t> qwen2_vl_unlabelled_ids(const Tokenizer& tokenizer) {
  std::vector<std::int32_t> ids;
  if (const auto id = tokenizer.token_id(kPadding)) ids.push_back(*id);
  for (const std::string_view token : kPlaceholders) {
    if (const auto id = tokenizer.token_id(token)) ids.push_back(*id);
  }
  return ids;
}

}  // namespace medvqa
