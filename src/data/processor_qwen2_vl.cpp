#include "src/data/processor_qwen2_vl.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "medvqa/core/error.h"
#include "src/data/chat_processor.h"
#include "src/data/qwen2_vl_image_config.h"

namespace medvqa::data {
namespace {

using io::JsonObject;

class Qwen2VlProcessor final : public ChatProcessor {
 public:
  Qwen2VlProcessor(Parts parts, const Qwen2VlImageConfig& config)
      : ChatProcessor(std::move(parts)), config_(config) {}

  std::int64_t patch_columns() const override {
    const std::int64_t side = config_.patch_size;
    return 3 * config_.temporal_patch_size * side * side;
  }
  std::vector<IntegerTensor> describe_images(std::span<const PatchGrid> grids) const override {
    IntegerTensor t{"image_grid_thw", {static_cast<std::int64_t>(grids.size()), 3}, {}};
    for (const PatchGrid& g : grids) t.values.insert(t.values.end(), {g.t, g.h, g.w});
    return {t};
  }

 private:
  PatchGrid grid_of(ImageSize size) const override {
    return qwen2_vl_grid(size.height, size.width, config_);
  }
  std::int64_t image_tokens(const PatchGrid& grid) const override {
    return grid.patches() / (std::int64_t{config_.merge_size} * config_.merge_size);
  }
  RenderedChat render(const std::vector<ChatMessage>& messages,
                      const ChatOptions& options) const override {
    return render_qwen2_vl(messages, options);
  }
  std::vector<float> patches_of(const Image& image) const override {
    return qwen2_vl_patches(image, config_).values;
  }

  Qwen2VlImageConfig config_;
};

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

std::int64_t vocabulary_of(const JsonObject& config) {
  constexpr std::int64_t kPublished = 152064;
  const std::int64_t outer = config.integer_or("vocab_size", kPublished, 1);
  if (!config.has("text_config")) return outer;
  return config.object("text_config").integer_or("vocab_size", outer, 1);
}

}  // namespace

std::unique_ptr<Processor> make_qwen2_vl_processor(const std::filesystem::path& model_folder,
                                                   const nlohmann::json& config,
                                                   const ProcessorOptions& options) {
  const JsonObject root(config, (model_folder / "config.json").string(), ExitCode::model);
  const Qwen2VlImageConfig image_config = read_qwen2_vl_image_config(model_folder, options);
  check_patches(image_config, root);
  Tokenizer tokenizer = Tokenizer::load_folder(model_folder);
  check_vocabulary(tokenizer, root, vocabulary_of(root), vocabulary_of(root));
  const std::int32_t image_token =
      check_image_token(tokenizer, root, {"<|image_pad|>", "image_token_id", 151655});
  std::vector<std::int32_t> unlabelled = qwen2_vl_unlabelled_ids(tokenizer);
  return std::make_unique<Qwen2VlProcessor>(
      ChatProcessor::Parts{std::move(tokenizer), options.prompt, std::move(unlabelled),
                           image_token},
      image_config);
}

}  // namespace medvqa::data
