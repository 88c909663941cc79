#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "medvqa/data/processor.h"
#include "medvqa/text/tokenizer.h"
#include "tests/data/data_test_support.h"

namespace medvqa::data {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// A model folder: a tokenizer of Llama-3's form with its special tokens, tiles of 16 pixels.
class MllamaProcessorTest : public ::testing::Test {
 protected:
  MllamaProcessorTest() {
    std::ifstream file(fs::path(MEDVQA_FIXTURES) / "text/llama3_tokenizer.json");
    json tokenizer = json::parse(file);
    std::int64_t id = 0;
    for (const json& token : tokenizer["added_tokens"]) {
      id = std::max(id, token.at("id").get<std::int64_t>() + 1);
    }
    for (const char* text :
         {"<|begin_of_text|>", "<|finetune_right_pad_id|>", "<|start_header_id|>",
          "<|end_header_id|>", "<|eot_id|>", "<|image|>"}) {
      json token = tokenizer["added_tokens"][0];
      token["id"] = id++;
      token["content"] = text;
      tokenizer["added_tokens"].push_back(token);
    }
    folder_.write("tokenizer.json", tokenizer.dump());
    image_token_ = id - 1;
    config_ = {{"model_type", "mllama"},
               {"image_token_index", image_token_},
               {"text_config", {{"vocab_size", image_token_}}},
               {"vision_config", {{"image_size", 16}, {"patch_size", 4}, {"max_num_tiles", 4}}}};
    settings_ = {{"size", {{"height", 16}, {"width", 16}}},
                 {"max_image_tiles", 4},
                 {"resample", 2},
                 {"do_pad", true}};
    write_settings();
  }

  void write_settings() { folder_.write("preprocessor_config.json", settings_.dump()); }
  std::unique_ptr<Processor> make(const ProcessorOptions& options = {}) {
    return make_processor(folder_.path(), config_, options);
  }
  void fails(const std::vector<std::string>& parts) {
    expect_user_error(ExitCode::model, parts, [&] { make(); });
  }
  std::string text_of(const Example& example) {
    return Tokenizer::load(folder_.path() / "tokenizer.json").decode(example.ids, false);
  }
  // 23 x 17 pixels.
  static Record record() {
    return make_record("r", (fs::path(MEDVQA_FIXTURES) / "image/rgb8.png").string());
  }

  TempFolder folder_;
  json config_, settings_;
  std::int64_t image_token_ = 0;
};

TEST_F(MllamaProcessorTest, APictureIsOneToken) {
  const auto processor = make();
  const Example example = processor->prepare(record());
  EXPECT_EQ(text_of(example),
            "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n<|image|>what<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\nyes<|eot_id|>");
  EXPECT_EQ(example.image_tokens, 1);
  EXPECT_EQ(std::count(example.ids.begin(), example.ids.end(), image_token_), 1);
  EXPECT_EQ(example.grid.h, 8);
  EXPECT_EQ(example.grid.w, 8);
  std::vector<float> patches;
  processor->load_patches(example, patches);
  EXPECT_EQ(processor->patch_columns(), 48);
  EXPECT_EQ(std::ssize(patches), 64 * 48);
  EXPECT_NE(processor->describe(example).find("<image x 1>what"), std::string::npos);
}

TEST_F(MllamaProcessorTest, NoLossOnPictures) {
  ProcessorOptions options;
  options.prompt.loss_on = LossOn::all;
  const Example example = make(options)->prepare(record());
  for (std::size_t i = 0; i < example.ids.size(); ++i) {
    EXPECT_EQ(example.labels[i] == kNoLabel, example.ids[i] == image_token_) << i;
  }
}

TEST_F(MllamaProcessorTest, TextFirstAndTextOnly) {
  ProcessorOptions options;
  options.prompt.image_first = false;
  EXPECT_NE(text_of(make(options)->prepare(record())).find("what<|image|><|eot_id|>"),
            std::string::npos);
  const Example bare = make()->prepare(make_record("t", ""));
  EXPECT_EQ(bare.image_tokens, 0);
  EXPECT_NE(text_of(bare).find("Cutting Knowledge Date"), std::string::npos);
  options.prompt.system = "Be brief.";
  expect_user_error(ExitCode::config, {"record r", "data.system"},
                    [&] { make(options)->prepare(record()); });
}

TEST_F(MllamaProcessorTest, PicturesAsTheReferenceHasThem) {
  const auto processor = make();
  const std::vector<PatchGrid> grids{{1, 4, 4}, {1, 4, 16}, {1, 8, 4}, {1, 8, 8}, {1, 16, 4}};
  const auto tensors = processor->describe_images(grids);
  ASSERT_EQ(tensors.size(), 2u);
  EXPECT_EQ(tensors[0].name, "aspect_ratio_ids");
  EXPECT_EQ(tensors[0].values, (std::vector<std::int64_t>{1, 4, 5, 6, 8}));
  EXPECT_EQ(tensors[1].name, "num_tiles");
  EXPECT_EQ(tensors[1].values, (std::vector<std::int64_t>{1, 4, 2, 4, 4}));
  EXPECT_EQ(processor->pixel_shape(64), (std::vector<std::int64_t>{4, 3, 16, 16}));
  EXPECT_EQ(max_image_pixels(folder_.path(), config_, {}), 4 * 256);
}

TEST_F(MllamaProcessorTest, MaxPixelsLowersTheTiles) {
  ProcessorOptions options;
  options.max_pixels = 2 * 256 + 255;
  const Example example = make(options)->prepare(record());
  EXPECT_EQ(example.grid.h * example.grid.w, 2 * 16);
  EXPECT_EQ(make(options)->describe_images(std::vector<PatchGrid>{{1, 8, 4}})[0].values[0], 5);
  EXPECT_EQ(max_image_pixels(folder_.path(), config_, options), 2 * 256 + 255);
  options.max_pixels = 255;
  expect_user_error(ExitCode::config, {"max_pixels", "255", "256"}, [&] { make(options); });
  options = {};
  options.min_pixels = 4;
  expect_user_error(ExitCode::config, {"min_pixels"}, [&] { make(options); });
}

TEST_F(MllamaProcessorTest, WithoutProcessorFileTheModelSaysIt) {
  fs::remove(folder_.path() / "preprocessor_config.json");
  EXPECT_EQ(make()->prepare(record()).grid.patches(), 64);
}

TEST_F(MllamaProcessorTest, ContradictionsAreNamed) {
  const json good = settings_;
  const auto with = [&](const char* key, const json& value, const std::vector<std::string>& parts) {
    settings_ = good;
    settings_[key] = value;
    write_settings();
    fails(parts);
  };
  with("do_pad", false, {"\"do_pad\""});
  with("size", {{"height", 16}, {"width", 8}}, {"height and width"});
  with("size", {{"height", 32}, {"width", 32}}, {"vision_config", "\"image_size\"", "16", "32"});
  with("max_image_tiles", 2, {"\"max_num_tiles\"", "4", "2"});
  with("resample", 7, {"\"resample\"", "7"});
  settings_ = good;
  write_settings();
  const json model = config_;
  config_["vision_config"]["supported_aspect_ratios"] = {{1, 1}, {2, 1}};
  fails({"supported_aspect_ratios"});
  config_ = model;
  config_["vision_config"]["patch_size"] = 5;
  fails({"\"patch_size\" is 5"});
  config_ = model;
  config_["image_token_index"] = 7;
  fails({"\"image_token_index\" is 7", "<|image|>"});
  config_ = model;
  config_["text_config"]["vocab_size"] = image_token_ - 8;
  fails({"\"vocab_size\""});
}

}  // namespace
}  // namespace medvqa::data
