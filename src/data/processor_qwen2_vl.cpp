#include "src/data/processor_qwen2_vl.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>

#include "medvqa/core/error.h"
#include "medvqa/image/image_size.h"
#include "medvqa/io/json.h"
#include "medvqa/text/chat_template.h"
#include "src/data/prompt_template.h"
#include "src/data/qwen2_vl_image_config.h"

namespace medvqa::data {
namespace {

using io::JsonObject;

class Qwen2VlProcessor : public Processor {
 public:
  Qwen2VlProcessor(Tokenizer tokenizer, const Qwen2VlImageConfig& image_config,
                   const PromptOptions& prompt, std::int32_t image_token_id)
      : tokenizer_(std::move(tokenizer)),
        image_config_(image_config),
        options_(prompt),
        prompt_(prompt.prompt),
        unlabelled_(qwen2_vl_unlabelled_ids(tokenizer_)),
        image_token_id_(image_token_id) {}

  Example prepare(const Record& record) const override { return prepare(record, record.answer); }
  Example prepare(const Record& record, const std::string& answer) const override;
  void load_patches(const Example& example, std::vector<float>& patches) const override;
  std::int64_t patch_columns() const override {
    const std::int64_t side = image_config_.patch_size;
    return 3 * image_config_.temporal_patch_size * side * side;
  }
  std::string describe(const Example& example) const override;

 private:
  PatchGrid grid_of(const Record& record) const;
  std::vector<ChatMessage> conversation(const Record& record, const std::string& answer) const;

  Tokenizer tokenizer_;
  Qwen2VlImageConfig image_config_;
  PromptOptions options_;
  PromptTemplate prompt_;
  std::vector<std::int32_t> unlabelled_;
  std::int32_t image_token_id_;
};

PatchGrid Qwen2VlProcessor::grid_of(const Record& record) const {
  if (record.image.empty()) return {1, 0, 0};
  const ImageSize size = image_size(record.image);
  try {
    return qwen2_vl_grid(size.height, size.width, image_config_);
  } catch (const UserError& error) {
    throw UserError(error.code(), fmt::format("{}: {}", record.image.string(), error.what()));
  }
}

std::vector<ChatMessage> Qwen2VlProcessor::conversation(const Record& record,
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

Example Qwen2VlProcessor::prepare(const Record& record, const std::string& answer) const {
  try {
    Example example;
    example.id = record.id;
    example.image = record.image;
    example.grid = grid_of(record);
    const std::int64_t merged = std::int64_t{image_config_.merge_size} * image_config_.merge_size;
    example.image_tokens = example.grid.patches() / merged;
    ChatOptions chat_options;
    if (!record.image.empty()) chat_options.image_tokens = {example.image_tokens};
    const RenderedChat chat = render_qwen2_vl(conversation(record, answer), chat_options);
    Encoding encoding = tokenizer_.encode(chat.text);
    example.labels = make_labels(encoding, chat.answers, options_.loss_on, unlabelled_);
    example.ids = std::move(encoding.ids);
    MEDVQA_CHECK(
        std::count(example.ids.begin(), example.ids.end(), image_token_id_) == example.image_tokens,
        "one token for every merged patch");
    return example;
  } catch (const UserError& error) {
    throw UserError(error.code(), fmt::format("record {}: {}", record.id, error.what()));
  }
}

void Qwen2VlProcessor::load_patches(const Example& example, std::vector<float>& patches) const {
  if (example.image.empty()) return;
  const ImagePatches loaded = qwen2_vl_patches(load_image(example.image), image_config_);
  if (loaded.grid_h != example.grid.h || loaded.grid_w != example.grid.w) {
    throw UserError(ExitCode::data,
                    fmt::format("record {}: {}: found {} x {} patches, expected {} x {} as at the "
                                "start; the file has changed, start again",
                                example.id, example.image.string(), loaded.grid_h, loaded.grid_w,
                                example.grid.h, example.grid.w));
  }
  patches.insert(patches.end(), loaded.values.begin(), loaded.values.end());
}

std::string Qwen2VlProcessor::describe(const Example& example) const {
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

Tokenizer load_tokenizer(const std::filesystem::path& model_folder) {
  const std::filesystem::path file = model_folder / "tokenizer.json";
  std::error_code error;
  if (!std::filesystem::exists(file, error)) {
    throw UserError(ExitCode::model,
                    fmt::format("{}: found nothing, expected the model's tokenizer; copy "
                                "tokenizer.json from the Hub folder of the model",
                                file.string()));
  }
  return Tokenizer::load(file);
}

// Returns the id of the image's placeholder.
std::int32_t check_vocabulary(const Tokenizer& tokenizer, const JsonObject& config) {
  constexpr std::int64_t kDefaultVocabulary = 152064;
  constexpr std::int64_t kDefaultImageToken = 151655;
  std::int64_t vocabulary = config.integer_or("vocab_size", kDefaultVocabulary, 1);
  if (config.has("text_config")) {
    vocabulary = config.object("text_config").integer_or("vocab_size", vocabulary, 1);
  }
  if (tokenizer.vocab_size() > vocabulary) {
    config.fail(
        fmt::format("\"vocab_size\" is {}, but tokenizer.json has ids up to {}; take both "
                    "files from the same model",
                    vocabulary, tokenizer.vocab_size() - 1));
  }
  const std::int64_t expected = config.integer_or("image_token_id", kDefaultImageToken);
  const auto found = tokenizer.token_id("<|image_pad|>");
  if (!found || *found != expected) {
    config.fail(
        fmt::format("\"image_token_id\" is {}, but <|image_pad|> of tokenizer.json is {}; "
                    "take both files from the same model",
                    expected, found ? fmt::format("{}", *found) : "missing"));
  }
  return *found;
}

void check_patches(const Qwen2VlImageConfig& image, const JsonObject& config) {
  if (!config.has("vision_config")) return;
  const JsonObject vision = config.object("vision_config");
  const auto check = [&](const char* key, int found) {
    const std::int64_t expected = vision.integer_or(key, found);
    if (expected == found) return;
    vision.fail(
        fmt::format("\"{}\" is {}, but the image processor's file says {}; take both files "
                    "from the same model",
                    key, expected, found));
  };
  check("patch_size", image.patch_size);
  check("temporal_patch_size", image.temporal_patch_size);
  check("spatial_merge_size", image.merge_size);
}

}  // namespace

std::unique_ptr<Processor> make_qwen2_vl_processor(const std::filesystem::path& model_folder,
                                                   const nlohmann::json& config,
                                                   const ProcessorOptions& options) {
  const JsonObject root(config, (model_folder / "config.json").string(), ExitCode::model);
  const Qwen2VlImageConfig image_config = read_qwen2_vl_image_config(model_folder, options);
  check_patches(image_config, root);
  Tokenizer tokenizer = load_tokenizer(model_folder);
  const std::int32_t image_token_id = check_vocabulary(tokenizer, root);
  return std::make_unique<Qwen2VlProcessor>(std::move(tokenizer), image_config, options.prompt,
                                            image_token_id);
}

}  // namespace medvqa::data
