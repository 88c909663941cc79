#include "src/data/processor_llama.h"

#include <fmt/format.h>

#include <array>
#include <nlohmann/json.hpp>
#include <utility>

#include "medvqa/core/error.h"
#include "medvqa/io/file.h"
#include "src/data/chat_processor.h"

namespace medvqa::data {
namespace {

using nlohmann::json;

constexpr std::int32_t kNoToken = -1;
constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 26;

// The template itself is not run, only recognised: from 3.1 on it writes a knowledge cut-off. The
// base models come without one, and then 3.0's is taken.
bool is_dated(const std::filesystem::path& folder) {
  constexpr std::array kFiles = {"chat_template.jinja", "chat_template.json",
                                 "tokenizer_config.json"};
  for (const char* name : kFiles) {
    std::error_code error;
    if (!std::filesystem::exists(folder / name, error)) continue;
    const std::string text = io::read_text_file(folder / name, ExitCode::model, kMostBytes);
    if (text.find("Cutting Knowledge Date") != std::string::npos) return true;
  }
  return false;
}

// How a conversation is written, and with which tokens around a turn.
struct ChatForm {
  RenderChat render = nullptr;
  std::string begin_token, end_token;
};

// The text of a token, which may be an object with flags.
std::string token_text(const json& settings, const char* key, const char* usual) {
  const json value = settings.value(key, json(usual));
  if (value.is_object()) return value.value("content", usual);
  return value.is_string() ? value.get<std::string>() : usual;
}

// The template of a SentencePiece model: a file of its own, or the settings' (one, or a list of
// named ones).
std::string template_text(const std::filesystem::path& folder, const json& settings) {
  const std::filesystem::path file = folder / "chat_template.jinja";
  std::error_code error;
  if (std::filesystem::exists(file, error)) {
    return io::read_text_file(file, ExitCode::model, kMostBytes);
  }
  const json value = settings.value("chat_template", json());
  if (value.is_string()) return value.get<std::string>();
  for (const json& named : value.is_array() ? value : json::array()) {
    if (named.is_object() && named.value("name", "") == "default") {
      return named.value("template", "");
    }
  }
  return {};
}

ChatForm sentencepiece_form(const std::filesystem::path& folder) {
  const std::filesystem::path file = folder / "tokenizer_config.json";
  std::error_code error;
  json settings = json::object();
  if (std::filesystem::exists(file, error)) settings = io::read_json_file(file, {ExitCode::model});
  const std::string text = template_text(folder, settings);
  const RenderChat render = recognise_chat_template(text);
  if (render == nullptr) {
    throw UserError(
        ExitCode::model,
        fmt::format("{}: chat_template: found {}, expected Llama 2's ([INST] ... [/INST]) or "
                    "Zephyr's and TinyLlama's (<|user|> ... </s>); take a chat model of these, "
                    "others are not built in",
                    file.string(), text.empty() ? "none" : "one that is not known"));
  }
  return {render, token_text(settings, "bos_token", "<s>"),
          token_text(settings, "eos_token", "</s>")};
}

class LlamaProcessor final : public ChatProcessor {
 public:
  LlamaProcessor(Parts parts, ChatForm form)
      : ChatProcessor(std::move(parts)), form_(std::move(form)) {}

  using ChatProcessor::prepare;
  Example prepare(const Record& record, const std::string& answer) const override {
    if (record.image_name.empty() && record.image.empty()) {
      return ChatProcessor::prepare(record, answer);
    }
    throw UserError(
        ExitCode::data,
        fmt::format("record {}: found the picture {}, expected text alone: a llama model has no "
                    "eyes; leave the pictures out or take a vision model",
                    record.id, record.image_name));
  }
  std::int64_t patch_columns() const override { return 0; }

 private:
  PatchGrid grid_of(ImageSize) const override { return {1, 0, 0}; }
  std::int64_t image_tokens(const PatchGrid&) const override { return 0; }
  RenderedChat render(const std::vector<ChatMessage>& messages,
                      const ChatOptions& options) const override {
    ChatOptions own = options;
    own.begin_token = form_.begin_token;
    own.end_token = form_.end_token;
    return form_.render(messages, own);
  }
  std::vector<float> patches_of(const Image&) const override { return {}; }

  ChatForm form_;
};

}  // namespace

std::unique_ptr<Processor> make_llama_processor(const std::filesystem::path& model_folder,
                                                const nlohmann::json& config,
                                                const ProcessorOptions& options) {
  const io::JsonObject root(config, (model_folder / "config.json").string(), ExitCode::model);
  Tokenizer tokenizer = Tokenizer::load_folder(model_folder);
  const std::int64_t vocabulary = root.object("text_config").integer("vocab_size", 1);
  check_vocabulary(tokenizer, root, vocabulary, vocabulary);
  if (tokenizer.is_sentencepiece()) {
    ChatForm form = sentencepiece_form(model_folder);
    return std::make_unique<LlamaProcessor>(
        ChatProcessor::Parts{std::move(tokenizer), options.prompt, {}, kNoToken}, std::move(form));
  }
  for (const char* token :
       {"<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}) {
    if (tokenizer.token_id(token)) continue;
    throw UserError(
        ExitCode::model,
        fmt::format("{}: found no token {}, expected the tokenizer of Llama 3 or later, or a "
                    "SentencePiece one as Llama 2's",
                    (model_folder / "tokenizer.json").string(), token));
  }
  std::vector<std::int32_t> unlabelled = llama3_vision_unlabelled_ids(tokenizer);
  return std::make_unique<LlamaProcessor>(
      ChatProcessor::Parts{std::move(tokenizer), options.prompt, std::move(unlabelled), kNoToken},
      ChatForm{is_dated(model_folder) ? render_llama31 : render_llama3, {}, {}});
}

}  // namespace medvqa::data
