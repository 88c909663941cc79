// What the processors of all vision-language models have in common. Internal to the data module.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "medvqa/data/processor.h"
#include "medvqa/image/decode.h"
#include "medvqa/io/json.h"
#include "medvqa/text/chat_template.h"
#include "medvqa/text/tokenizer.h"
#include "src/data/prompt_template.h"

namespace medvqa::data {

// A conversation of one user message, with a picture or without, and the answer.
class ChatProcessor : public Processor {
 public:
  struct Parts {
    Tokenizer tokenizer;
    PromptOptions prompt;
    std::vector<std::int32_t> unlabelled;
    std::int32_t image_token_id = 0;
  };
  explicit ChatProcessor(Parts parts);

  Example prepare(const Record& record) const override { return prepare(record, record.answer); }
  Example prepare(const Record& record, const std::string& answer) const override;
  void load_patches(const Example& example, std::vector<float>& patches) const override;
  std::string describe(const Example& example) const override;

 protected:
  virtual PatchGrid grid_of(ImageSize size) const = 0;
  // How many tokens of the text such a picture takes.
  virtual std::int64_t image_tokens(const PatchGrid& grid) const = 0;
  virtual RenderedChat render(const std::vector<ChatMessage>& messages,
                              const ChatOptions& options) const = 0;
  virtual std::vector<float> patches_of(const Image& image) const = 0;

 private:
  PatchGrid grid_of(const Record& record) const;
  std::vector<ChatMessage> conversation(const Record& record, const std::string& answer) const;

  Tokenizer tokenizer_;
  PromptOptions options_;
  PromptTemplate prompt_;
  std::vector<std::int32_t> unlabelled_;
  std::int32_t image_token_id_;
};

// The placeholder's id, which config.json and tokenizer.json must agree on.
struct ImageToken {
  const char* text;            // "<|image_pad|>"
  const char* key;             // of config.json
  std::int64_t published = 0;  // where the key is missing
};
std::int32_t check_image_token(const Tokenizer& tokenizer, const io::JsonObject& config,
                               const ImageToken& token);
// UserError(ExitCode::model) if the tokenizer has ids of `rows` and above.
void check_vocabulary(const Tokenizer& tokenizer, const io::JsonObject& config, std::int64_t rows,
                      std::int64_t vocabulary);

}  // namespace medvqa::data
