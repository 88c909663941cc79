// Records to model inputs: chat template, tokens, labels, image grids and patches.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "medvqa/data/record.h"
#include "medvqa/image/patches.h"

namespace medvqa::data {

// A tokenised record; its pixels are read later. Small enough to keep for a whole data set.
struct Example {
  std::string id;
  std::vector<std::int32_t> ids;            // image placeholders expanded
  std::vector<std::int32_t> labels;         // unshifted, -100 where no loss is taken
  std::optional<std::int32_t> class_index;  // of a classification; the labels are all -100 then
  std::filesystem::path image;              // empty: none
  PatchGrid grid;                           // of the image, {1, 0, 0} without one
  std::int64_t image_tokens = 0;            // of `ids`, how many the image takes
  // Labels that count: the class, or tokens that are not -100 and not at position 0.
  std::int64_t label_count() const;
};

struct ProcessorOptions {
  PromptOptions prompt;
  std::optional<std::int64_t> min_pixels, max_pixels;  // nothing: the processor file's
  std::optional<Classes> classes = {};                 // a classification's
};

// A small tensor of the reference's processor, for comparison with other programs.
struct IntegerTensor {
  std::string name;
  std::vector<std::int64_t> shape, values;
};

class Processor {
 public:
  virtual ~Processor() = default;
  // Tokens and labels; reads at most the image's header. Thread-safe.
  virtual Example prepare(const Record& record) const = 0;
  // The same with another answer, for scores by log-likelihood.
  virtual Example prepare(const Record& record, const std::string& answer) const = 0;
  // Patches f32 [P, patch_columns()] of the example's image, appended to `patches`. Thread-safe.
  virtual void load_patches(const Example& example, std::vector<float>& patches) const = 0;
  virtual std::int64_t patch_columns() const = 0;
  // The pictures as the reference's processor hands them over: what it says of them, and the shape
  // and order of its pixel values.
  virtual std::vector<IntegerTensor> describe_images(std::span<const PatchGrid>) const {
    return {};
  }
  virtual std::vector<std::int64_t> pixel_shape(std::int64_t patch_rows) const {
    return {patch_rows, patch_columns()};
  }
  virtual std::vector<float> pixels(std::span<const float> patches) const {
    return {patches.begin(), patches.end()};
  }
  // What is asked of a record and what is to be said, the picture aside: two records with the same
  // are the same to a model.
  virtual std::pair<std::string, std::string> content(const Record& record) const {
    return {record.question, record.answer};
  }
  // The example's text, tokens the loss is computed on in [[...]], an image as <image x 64>.
  virtual std::string describe(const Example& example) const = 0;
};

// Chooses by "model_type" of `config` (io/model_config.h); reads the tokenizer's files and
// preprocessor_config.json in `model_folder`. UserError(ExitCode::model) names what is missing,
// and a vocabulary larger than the model's.
std::unique_ptr<Processor> make_processor(const std::filesystem::path& model_folder,
                                          const nlohmann::json& config,
                                          const ProcessorOptions& options);

// The token of each class's text, in order. UserError(ExitCode::config) for a text that is not one
// token and for two classes with the same one.
std::vector<std::int32_t> class_tokens(const std::filesystem::path& model_folder,
                                       const Classes& classes);

// The most pixels an image may have after resizing; needs no tokenizer. Without a processor file
// the class default of the reference.
std::int64_t max_image_pixels(const std::filesystem::path& model_folder,
                              const nlohmann::json& config, const ProcessorOptions& options);

// The id of the tokenizer's pad_token, as tokenizer_config.json names it; else of its unk_token,
// which no text becomes: the tokenizers read here have a token for every byte. Nothing without a
// tokenizer, or if it names neither.
std::optional<std::int32_t> padding_token(const std::filesystem::path& model_folder);

}  // namespace medvqa::data
