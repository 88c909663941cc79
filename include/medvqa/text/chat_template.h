// Conversations to the text a model was trained on, with the places in it that matter.
//
// One function per template, all of the same form, so that another model's stands beside it:
// RenderedChat render_<model>(messages, options).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "medvqa/text/span.h"
#include "medvqa/text/tokenizer.h"

namespace medvqa {

// One piece of a message: text, or the place of a picture.
struct ContentPart {
  enum class Kind { text, image };
  Kind kind = Kind::text;
  std::string text;  // empty for an image
};

struct ChatMessage {
  std::string role;  // "system", "user", "assistant"
  std::vector<ContentPart> content;
};

struct ChatOptions {
  // Ends with the assistant's header, for generation.
  bool add_generation_prompt = false;
  // How many placeholder tokens each picture takes, in the order of the pictures; for Qwen2-VL
  // grid.patches() / merge_size^2. Empty: one each, as the template itself writes it.
  std::vector<std::int64_t> image_tokens;
  // Llama 3.2 names today's date to a model without pictures. Fixed, so that runs repeat.
  std::string date = "26 Jul 2024";
  // The tokens around a turn, where a template takes them from tokenizer_config.json.
  std::string begin_token = "<s>", end_token = "</s>";
};

struct RenderedChat {
  std::string text;
  // Of every assistant message: its content and the end-of-turn token, not what follows that.
  std::vector<Span> answers;
  // Of every picture: its placeholders, without the markers around them.
  std::vector<Span> images;
};

// Qwen2-VL and Qwen2.5-VL: <|im_start|>{role}\n{content}<|im_end|>\n for every message, and
// "You are a helpful assistant." as the system's if the first message is not the system's. A
// picture is <|vision_start|><|image_pad|>...<|vision_end|>.
//
// Errors: UserError(data) if a text contains one of the vision placeholders, for it would be taken
// for a picture. Other special tokens in a text (<|im_start|>, <|im_end|>, <|endoftext|>) stay and
// become special tokens, as in the reference: text from untrusted users can forge turns that way.
RenderedChat render_qwen2_vl(const std::vector<ChatMessage>& messages, const ChatOptions& options);

// The tokens no loss is taken on with Qwen2-VL's template: padding and the vision placeholders,
// as far as the vocabulary has them.
std::vector<std::int32_t> qwen2_vl_unlabelled_ids(const Tokenizer& tokenizer);

// Llama 3.2 Vision: <|begin_of_text|>, then for every message
// <|start_header_id|>{role}<|end_header_id|>\n\n{content}<|eot_id|>. A picture is one <|image|>.
// Without any picture the system's message comes first, with or without a text of its own, and
// opens with the knowledge cut-off and the date; with pictures there is none.
//
// Errors: UserError(data) if a text contains <|image|>; UserError(config) for a system's text
// beside a picture, which the reference's template refuses too.
RenderedChat render_llama3_vision(const std::vector<ChatMessage>& messages,
                                  const ChatOptions& options);

// Llama 3's instruction models without a picture: the same form, with every content stripped of
// white space at both ends, and a system's message only where there is one.
RenderedChat render_llama3(const std::vector<ChatMessage>& messages, const ChatOptions& options);
// From 3.1 on: the system's message always comes first and opens with the knowledge cut-off and the
// date.
RenderedChat render_llama31(const std::vector<ChatMessage>& messages, const ChatOptions& options);

// Llama 2's chat models: {begin}[INST] {question} [/INST] {answer} {end} for every exchange, all
// stripped of white space at both ends; the system's text opens the first question between <<SYS>>
// and <</SYS>>. The space before an answer belongs to it: the question ends without one.
RenderedChat render_llama2(const std::vector<ChatMessage>& messages, const ChatOptions& options);
// Zephyr and TinyLlama's chat models: <|{role}|>\n{content}{end}\n for every message.
RenderedChat render_zephyr(const std::vector<ChatMessage>& messages, const ChatOptions& options);

// Which of the two a template in Jinja's language is, told by all that it writes; null for others.
using RenderChat = RenderedChat (*)(const std::vector<ChatMessage>&, const ChatOptions&);
RenderChat recognise_chat_template(std::string_view jinja);

// The tokens no loss is taken on: padding and <|image|>, which the head has no row for.
std::vector<std::int32_t> llama3_vision_unlabelled_ids(const Tokenizer& tokenizer);

}  // namespace medvqa
