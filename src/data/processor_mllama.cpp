#include "src/data/processor_mllama.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "medvqa/core/error.h"
#include "src/data/chat_processor.h"
#include "src/data/image_config.h"

namespace medvqa::data {
namespace {

using io::JsonObject;

// Rows of the embedding beyond the head's: <|image|> is the first of them.
constexpr std::int64_t kExtraRows = 8;
constexpr std::int64_t kPublishedVocabulary = 128256;

class MllamaProcessor final : public ChatProcessor {
 public:
  // `model_tiles`: of the arrangements the aspect-ratio ids count.
  MllamaProcessor(Parts parts, const MllamaImageConfig& config, int model_tiles)
      : ChatProcessor(std::move(parts)), config_(config), model_tiles_(model_tiles) {}

  std::int64_t patch_columns() const override { return config_.patch_columns(); }
  std::vector<IntegerTensor> describe_images(std::span<const PatchGrid> grids) const override {
    const auto count = static_cast<std::int64_t>(grids.size());
    IntegerTensor ids{"aspect_ratio_ids", {count}, {}};
    IntegerTensor tiles{"num_tiles", {count}, {}};
    const std::int64_t side = config_.patches_a_side();
    for (const PatchGrid& g : grids) {
      ids.values.push_back(aspect_ratio_id(g.h / side, g.w / side));
      tiles.values.push_back(g.patches() / (side * side));
    }
    return {ids, tiles};
  }
  std::vector<std::int64_t> pixel_shape(std::int64_t patch_rows) const override {
    const std::int64_t side = config_.patches_a_side();
    return {patch_rows / (side * side), 3, config_.tile_size, config_.tile_size};
  }
  std::vector<float> pixels(std::span<const float> patches) const override {
    return mllama_pixels(patches, config_);
  }

 private:
  // Arrangements in the order of the ids: those of one tile down first.
  std::int64_t aspect_ratio_id(std::int64_t high, std::int64_t wide) const {
    std::int64_t id = wide;
    for (std::int64_t rows = 1; rows < high; ++rows) id += model_tiles_ / rows;
    return id;
  }
  PatchGrid grid_of(ImageSize size) const override {
    return mllama_grid(size.height, size.width, config_);
  }
  std::int64_t image_tokens(const PatchGrid&) const override { return 1; }
  RenderedChat render(const std::vector<ChatMessage>& messages,
                      const ChatOptions& options) const override {
    return render_llama3_vision(messages, options);
  }
  std::vector<float> patches_of(const Image& image) const override {
    return mllama_patches(image, config_);
  }

  MllamaImageConfig config_;
  int model_tiles_;
};

void read_file(const ImageProcessorFile& file, MllamaImageConfig& config) {
  const JsonObject object = file.object();
  config.scale = read_pixel_scale(object);
  config.resample = read_filter(object, config.resample);
  config.max_tiles = static_cast<int>(object.integer_or("max_image_tiles", 4, 1, 64));
  if (!object.boolean_or("do_pad", true)) {
    object.fail("\"do_pad\" is false, expected true: images are always prepared so");
  }
  if (!object.has("size")) return;
  const JsonObject size = object.object("size");
  const std::int64_t height = size.integer("height", 1, 1 << 14);
  if (size.integer("width") != height) size.fail("height and width differ, expected square tiles");
  config.tile_size = static_cast<int>(height);
}

// Arrangements of at most `tiles` tiles in the order of their ids.
nlohmann::json all_arrangements(std::int64_t tiles) {
  nlohmann::json list = nlohmann::json::array();
  for (std::int64_t high = 1; high <= tiles; ++high) {
    for (std::int64_t wide = 1; wide * high <= tiles; ++wide) list.push_back({high, wide});
  }
  return list;
}

void check_vision(const JsonObject& vision, const MllamaImageConfig& config) {
  const auto check = [&](const char* key, std::int64_t found) {
    const std::int64_t expected = vision.integer_or(key, found);
    if (expected == found) return;
    vision.fail(
        fmt::format("\"{}\" is {}, but the image processor's file says {}; take both files "
                    "from the same model",
                    key, expected, found));
  };
  check("image_size", config.tile_size);
  check("max_num_tiles", config.max_tiles);
  if (config.tile_size % config.patch_size != 0) {
    vision.fail(fmt::format("\"patch_size\" is {}, expected a divisor of the tiles' {} pixels",
                            config.patch_size, config.tile_size));
  }
  const char* ratios = "supported_aspect_ratios";
  if (vision.has(ratios) && vision.at(ratios) != all_arrangements(config.max_tiles)) {
    vision.fail(
        fmt::format("\"{}\" is not the list of all arrangements of at most {} tiles, whose "
                    "places in it are the aspect-ratio ids",
                    ratios, config.max_tiles));
  }
}

}  // namespace

MllamaImageConfig read_mllama_image_config(const std::filesystem::path& model_folder,
                                           const nlohmann::json& config,
                                           const ProcessorOptions& options) {
  const JsonObject root(config, (model_folder / "config.json").string(), ExitCode::model);
  const JsonObject vision = root.object("vision_config");
  MllamaImageConfig image;
  image.tile_size = static_cast<int>(vision.integer_or("image_size", 448, 1, 1 << 14));
  image.max_tiles = static_cast<int>(vision.integer_or("max_num_tiles", 4, 1, 64));
  image.patch_size = static_cast<int>(vision.integer_or("patch_size", 14, 1, 1 << 10));
  if (const auto file = find_image_processor_file(model_folder)) read_file(*file, image);
  check_vision(vision, image);
  if (options.min_pixels) {
    throw UserError(ExitCode::config,
                    "data.image.min_pixels: expected null for mllama, whose smallest picture is "
                    "one tile");
  }
  if (options.max_pixels) {
    const std::int64_t tile = std::int64_t{image.tile_size} * image.tile_size;
    const std::int64_t tiles = *options.max_pixels / tile;
    if (tiles < 1) {
      throw UserError(ExitCode::config,
                      fmt::format("data.image.max_pixels: found {}, expected at least the {} of "
                                  "one tile of this model",
                                  *options.max_pixels, tile));
    }
    image.max_tiles = static_cast<int>(std::min<std::int64_t>(tiles, image.max_tiles));
  }
  return image;
}

std::unique_ptr<Processor> make_mllama_processor(const std::filesystem::path& model_folder,
                                                 const nlohmann::json& config,
                                                 const ProcessorOptions& options) {
  const JsonObject root(config, (model_folder / "config.json").string(), ExitCode::model);
  const MllamaImageConfig image = read_mllama_image_config(model_folder, config, options);
  const int model_tiles =
      static_cast<int>(root.object("vision_config").integer_or("max_num_tiles", 4));
  Tokenizer tokenizer = Tokenizer::load_folder(model_folder);
  const std::int64_t vocabulary =
      root.object("text_config").integer_or("vocab_size", kPublishedVocabulary, 1);
  check_vocabulary(tokenizer, root, vocabulary + kExtraRows, vocabulary);
  const char* key = root.has("image_token_index") ? "image_token_index" : "image_token_id";
  const std::int32_t image_token = check_image_token(tokenizer, root, {"<|image|>", key, 128256});
  if (!options.prompt.image_first) {
    spdlog::warn(
        "data.image_first is false: text before the picture never sees it in Llama 3.2 Vision; "
        "the question then reaches the picture only through the tokens after it");
  }
  std::vector<std::int32_t> unlabelled = llama3_vision_unlabelled_ids(tokenizer);
  return std::make_unique<MllamaProcessor>(
      ChatProcessor::Parts{std::move(tokenizer), options.prompt, std::move(unlabelled),
                           image_token},
      image, model_tiles);
}

}  // namespace medvqa::data
