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

class LlamaProcessor final : public ChatProcessor {
 public:
  LlamaProcessor(Parts parts, bool dated) : ChatProcessor(std::move(parts)), dated_(dated) {}

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
    return dated_ ? render_llama31(messages, options) : render_llama3(messages, options);
  }
  std::vector<float> patches_of(const Image&) const override { return {}; }

  bool dated_;
};

}  // namespace

std::unique_ptr<Processor> make_llama_processor(const std::filesystem::path& model_folder,
                                                const nlohmann::json& config,
                                                const ProcessorOptions& options) {
  const io::JsonObject root(config, (model_folder / "config.json").string(), ExitCode::model);
  Tokenizer tokenizer = load_tokenizer(model_folder);
  const std::int64_t vocabulary = root.object("text_config").integer("vocab_size", 1);
  check_vocabulary(tokenizer, root, vocabulary, vocabulary);
  for (const char* token :
       {"<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}) {
    if (tokenizer.token_id(token)) continue;
    throw UserError(
        ExitCode::model,
        fmt::format("{}: found no token {}, expected the tokenizer of Llama 3 or later; "
                    "older Llamas are not built in",
                    (model_folder / "tokenizer.json").string(), token));
  }
  std::vector<std::int32_t> unlabelled = llama3_vision_unlabelled_ids(tokenizer);
  return std::make_unique<LlamaProcessor>(
      ChatProcessor::Parts{std::move(tokenizer), options.prompt, std::move(unlabelled), kNoToken},
      is_dated(model_folder));
}

}  // namespace medvqa::data
