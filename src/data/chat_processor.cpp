#include "src/data/chat_processor.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <utility>

#include "medvqa/core/error.h"
#include "medvqa/image/image_size.h"

namespace medvqa::data {

ChatProcessor::ChatProcessor(Parts parts)
    : tokenizer_(std::move(parts.tokenizer)),
      options_(parts.prompt),
      prompt_(parts.prompt.prompt),
      unlabelled_(std::move(parts.unlabelled)),
      image_token_id_(parts.image_token_id) {}

PatchGrid ChatProcessor::grid_of(const Record& record) const {
  if (record.image.empty()) return {1, 0, 0};
  const ImageSize size = image_size(record.image);
  try {
    return grid_of(size);
  } catch (const UserError& error) {
    throw UserError(error.code(), fmt::format("{}: {}", record.image.string(), error.what()));
  }
}

std::vector<ChatMessage> ChatProcessor::conversation(const Record& record,
                                                     const std::string& answer) const {
  using Kind = ContentPart::Kind;
  std::vector<ChatMessage> messages;
  if (options_.system) messages.push_back({"system", {{Kind::text, *options_.system}}});
  ChatMessage user{"user", {{Kind::text, prompt_.fill(record.columns)}}};
  if (!record.image.empty()) {
    const auto place = options_.image_first ? user.content.begin() : user.content.end();
    user.content.insert(place, ContentPart{Kind::image, {}});
  }
  messages.push_back(std::move(user));
  messages.push_back({"assistant", {{Kind::text, answer}}});
  return messages;
}

Example ChatProcessor::prepare(const Record& record, const std::string& answer) const {
  try {
    Example example;
    example.id = record.id;
    example.image = record.image;
    example.grid = grid_of(record);
    ChatOptions chat_options;
    if (!record.image.empty()) {
      example.image_tokens = image_tokens(example.grid);
      chat_options.image_tokens = {example.image_tokens};
    }
    const RenderedChat chat = render(conversation(record, answer), chat_options);
    Encoding encoding = tokenizer_.encode(chat.text);
    example.labels = make_labels(encoding, chat.answers, options_.loss_on, unlabelled_);
    example.ids = std::move(encoding.ids);
    MEDVQA_CHECK(
        std::count(example.ids.begin(), example.ids.end(), image_token_id_) == example.image_tokens,
        "the picture's placeholders are its tokens");
    return example;
  } catch (const UserError& error) {
    throw UserError(error.code(), fmt::format("record {}: {}", record.id, error.what()));
  }
}

void ChatProcessor::load_patches(const Example& example, std::vector<float>& patches) const {
  if (example.image.empty()) return;
  const Image image = load_image(example.image);
  const PatchGrid found = grid_of(ImageSize{image.height, image.width});
  if (found.h != example.grid.h || found.w != example.grid.w) {
    throw UserError(ExitCode::data,
                    fmt::format("record {}: {}: found {} x {} patches, expected {} x {} as at the "
                                "start; the file has changed, start again",
                                example.id, example.image.string(), found.h, found.w,
                                example.grid.h, example.grid.w));
  }
  const std::vector<float> loaded = patches_of(image);
  patches.insert(patches.end(), loaded.begin(), loaded.end());
}

std::string ChatProcessor::describe(const Example& example) const {
  enum class Kind { plain, counted, image };
  const auto kind_at = [&](std::size_t i) {
    if (example.ids[i] == image_token_id_) return Kind::image;
    return i > 0 && example.labels[i] != kNoLabel ? Kind::counted : Kind::plain;
  };
  std::string text;
  for (std::size_t begin = 0; begin < example.ids.size();) {
    const Kind kind = kind_at(begin);
    std::size_t end = begin + 1;
    while (end < example.ids.size() && kind_at(end) == kind) ++end;
    const auto ids = std::span(example.ids).subspan(begin, end - begin);
    if (kind == Kind::image) {
      text += fmt::format("<image x {}>", ids.size());
    } else {
      const std::string decoded = tokenizer_.decode(ids, /*skip_special=*/false);
      text += kind == Kind::counted ? "[[" + decoded + "]]" : decoded;
    }
    begin = end;
  }
  return text;
}

std::int32_t check_image_token(const Tokenizer& tokenizer, const io::JsonObject& config,
                               const ImageToken& token) {
  const std::int64_t expected = config.integer_or(token.key, token.published);
  const auto found = tokenizer.token_id(token.text);
  if (!found || *found != expected) {
    config.fail(fmt::format(
        "\"{}\" is {}, but {} of tokenizer.json is {}; take both files from "
        "the same model",
        token.key, expected, token.text, found ? fmt::format("{}", *found) : "missing"));
  }
  return *found;
}

void check_vocabulary(const Tokenizer& tokenizer, const io::JsonObject& config, std::int64_t rows,
                      std::int64_t vocabulary) {
  if (tokenizer.vocab_size() <= rows) return;
  config.fail(
      fmt::format("\"vocab_size\" is {}, but tokenizer.json or tokenizer.model has ids up to {}; "
                  "take all files from the same model",
                  vocabulary, tokenizer.vocab_size() - 1));
}

}  // namespace medvqa::data
