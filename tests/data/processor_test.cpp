#include "medvqa/data/processor.h"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "medvqa/data/dataset.h"
#include "medvqa/io/model_config.h"
#include "medvqa/io/safetensors.h"
#include "tests/data/data_test_support.h"

namespace medvqa::data {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

const fs::path& fixture() {
  static const fs::path path = fs::path(MEDVQA_FIXTURES) / "qwen2_vl_tiny";
  return path;
}

json tiny_config() {
  return io::read_model_config(fixture() / "checkpoint");
}

std::unique_ptr<Processor> tiny_processor(const ProcessorOptions& options = {}) {
  return make_processor(fixture() / "checkpoint", tiny_config(), options);
}

std::vector<Record> tiny_records() {
  return read_records(Source{"jsonl", fixture() / "dataset.jsonl", ""}).rows;
}

template <class T>
std::vector<T> values_of(const io::SafetensorsFile& file, const std::string& name) {
  const auto bytes = file.raw(name);
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

std::vector<std::int64_t> widened(const std::vector<std::int32_t>& values) {
  return {values.begin(), values.end()};
}

TEST(Qwen2VlProcessor, GivesTheReferencesInputs) {
  const auto processor = tiny_processor();
  const Dataset dataset = prepare_dataset(*processor, tiny_records(), {}, 2);
  const io::SafetensorsFile expected(fixture() / "expected.safetensors");
  const auto order = json::parse(expected.metadata().at("samples")).get<std::vector<std::size_t>>();
  EXPECT_EQ(epoch_order(6, true, 3407, 0).at(0), static_cast<std::int64_t>(order.at(0)));
  std::vector<const Example*> examples;
  for (const std::size_t i : order) examples.push_back(&dataset.examples[i]);
  const Batch batch = pack(*processor, examples, true);
  EXPECT_EQ(widened(batch.ids), values_of<std::int64_t>(expected, "input_ids"));
  EXPECT_EQ(widened(batch.labels), values_of<std::int64_t>(expected, "labels"));
  EXPECT_EQ(batch.cu_seqlens, values_of<std::int32_t>(expected, "cu_seqlens"));
  EXPECT_EQ(batch.patches, values_of<float>(expected, "pixel_values"));
  std::vector<std::int64_t> grids;
  for (const PatchGrid& grid : batch.grids) grids.insert(grids.end(), {grid.t, grid.h, grid.w});
  EXPECT_EQ(grids, values_of<std::int64_t>(expected, "image_grid_thw"));
  EXPECT_EQ(processor->patch_columns(), 1176);
  EXPECT_EQ(batch.patch_rows * 1176, static_cast<std::int64_t>(batch.patches.size()));
  std::int64_t labels = 0;
  for (const Example* example : examples) labels += example->label_count();
  EXPECT_EQ(labels, expected.entries().at("logit_rows").shape.at(0));
}

TEST(Qwen2VlProcessor, GivesTheReferencesTokensForEverySample) {
  const auto processor = tiny_processor();
  std::ifstream file(fixture() / "expected_inputs.json");
  const json expected = json::parse(file);
  std::vector<std::int32_t> ids, labels;
  for (const Record& record : tiny_records()) {
    const Example example = processor->prepare(record);
    ids.insert(ids.end(), example.ids.begin(), example.ids.end());
    labels.insert(labels.end(), example.labels.begin(), example.labels.end());
  }
  EXPECT_EQ(ids, expected.at("input_ids").get<std::vector<std::int32_t>>());
  EXPECT_EQ(labels, expected.at("labels").get<std::vector<std::int32_t>>());
}

std::string text_of(const ProcessorOptions& options, const Record& record) {
  const Tokenizer tokenizer = Tokenizer::load(fixture() / "checkpoint/tokenizer.json");
  return tokenizer.decode(tiny_processor(options)->prepare(record).ids, false);
}

TEST(Qwen2VlProcessor, FillsThePrompt) {
  ProcessorOptions options;
  options.prompt.prompt = "{{{organ}}} {question}";
  options.prompt.system = "Be brief.";
  Record record = tiny_records().at(3);
  record.columns["organ"] = "HEAD";
  const std::string picture = "<|vision_start|><|image_pad|><|image_pad|><|vision_end|>";
  const std::string question = "{HEAD} Is image 0 axial?";
  const std::string head = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n";
  const std::string tail = "<|im_end|>\n<|im_start|>assistant\nyes<|im_end|>\n";
  EXPECT_EQ(text_of(options, record), head + picture + question + tail);
  options.prompt.image_first = false;
  EXPECT_EQ(text_of(options, record), head + question + picture + tail);
  record.image.clear();
  EXPECT_EQ(text_of(options, record), head + question + tail);
}

TEST(Qwen2VlProcessor, TakesAnotherAnswer) {
  const auto processor = tiny_processor();
  std::vector<Record> records = tiny_records();
  const Example other = processor->prepare(records.at(3), "no");
  records[3].answer = "no";
  EXPECT_EQ(other.ids, processor->prepare(records[3]).ids);
  EXPECT_EQ(other.labels, processor->prepare(records[3]).labels);
}

TEST(Qwen2VlProcessor, LabelsEverythingButPlaceholdersIfTold) {
  ProcessorOptions options;
  options.prompt.loss_on = LossOn::all;
  const Example example = tiny_processor(options)->prepare(tiny_records().at(0));
  const auto without = std::count(example.labels.begin(), example.labels.end(), kNoLabel);
  EXPECT_EQ(without, example.image_tokens + 2);
  EXPECT_EQ(example.label_count(), std::ssize(example.ids) - without - 1);
}

TEST(Qwen2VlProcessor, BadRecordsAreNamed) {
  const auto fails = [](ExitCode code, const std::vector<std::string>& parts, const Record& record,
                        const std::string& prompt = "{question}") {
    ProcessorOptions options;
    options.prompt.prompt = prompt;
    expect_user_error(code, parts, [&] { tiny_processor(options)->prepare(record); });
  };
  const Record text = make_record("r7", "");
  fails(ExitCode::config, {"{organ}", "answer, question"}, text, "{organ}");
  fails(ExitCode::config, {"data.prompt", "} without"}, text, "a } b");
  fails(ExitCode::config, {"data.prompt", "{ without"}, text, "a {question");
  fails(ExitCode::config, {"data.prompt", "{ without"}, text, "a {b{c}");
  fails(ExitCode::config, {"data.prompt", "without a name"}, text, "{}");
  fails(ExitCode::data, {"r7", "<|image_pad|>"}, make_record("r7", "", "a <|image_pad|>"));
  fails(ExitCode::data, {"r7", "gone.png"}, make_record("r7", "gone.png"));
  const TempFolder folder;
  const auto broken = folder.write("x.png", "not a picture");
  fails(ExitCode::data, {"r7", "x.png", "unknown type"}, make_record("r7", broken.string()));
}

TEST(Qwen2VlProcessor, AChangedPictureIsNamed) {
  const auto processor = tiny_processor();
  Example example = processor->prepare(tiny_records().at(0));
  example.grid.h += 2;
  std::vector<float> patches;
  expect_user_error(ExitCode::data, {"dataset:1", "image00.jpg", "changed"},
                    [&] { processor->load_patches(example, patches); });
}

class ModelFolder : public ::testing::Test {
 protected:
  ModelFolder() : config_(tiny_config()) {
    fs::copy_file(fixture() / "checkpoint/tokenizer.json", folder_.path() / "tokenizer.json");
  }
  std::unique_ptr<Processor> make(const ProcessorOptions& options = {}) {
    return make_processor(folder_.path(), config_, options);
  }
  void fails(const std::vector<std::string>& parts) {
    expect_user_error(ExitCode::model, parts, [&] { make(); });
  }
  void fails_with(const std::string& file, const std::vector<std::string>& parts) {
    folder_.write("preprocessor_config.json", file);
    fails(parts);
  }
  // Of a picture of 128 x 40 pixels.
  std::int64_t patches(const ProcessorOptions& options = {}) {
    return make(options)->prepare(tiny_records().at(1)).grid.patches();
  }
  TempFolder folder_;
  json config_;
};

// A 1-bit BMP of 1400 x 1000 black pixels.
std::string large_bmp() {
  std::string bytes = "BM" + std::string(12, '\0');
  const auto put = [&](std::uint32_t value, int count) {
    for (int i = 0; i < count; ++i) bytes += static_cast<char>(value >> 8 * i & 0xff);
  };
  bytes[10] = 62;
  put(40, 4);
  put(1400, 4);
  put(1000, 4);
  put(1, 2);
  put(1, 2);
  bytes.resize(62 + 176 * 1000);
  return bytes;
}

TEST_F(ModelFolder, WithoutProcessorFileHasTheClassDefaults) {
  const Record record = make_record("r", folder_.write("large.bmp", large_bmp()).string());
  // As transformers 5.17: 28 * 28 * 1280 pixels at most, where published folders allow more.
  const PatchGrid grid = make()->prepare(record).grid;
  EXPECT_EQ(grid.h, 60);
  EXPECT_EQ(grid.w, 84);
  EXPECT_EQ(make()->patch_columns(), 1176);
}

TEST_F(ModelFolder, PixelsComeFromAnySpelling) {
  const std::vector<std::pair<std::string, std::string>> spellings = {
      {R"({"min_pixels": MIN, "max_pixels": MAX})", "plain"},
      {R"({"size": {"shortest_edge": MIN, "longest_edge": MAX}})", "edges"},
      {R"({"size": {"min_pixels": MIN, "max_pixels": MAX}})", "in size"},
      {R"({"size": {"shortest_edge": 9, "longest_edge": 9}, "min_pixels": MIN,
           "max_pixels": MAX})",
       "plain over edges"}};
  const auto write = [&](std::string text, const std::string& least, const std::string& most) {
    text.replace(text.find("MIN"), 3, least).replace(text.find("MAX"), 3, most);
    folder_.write("preprocessor_config.json", text);
  };
  // The counts are those of transformers' smart_resize.
  for (const auto& [text, name] : spellings) {
    write(text, "5000", "10000");
    EXPECT_EQ(patches(), 40) << name;
    write(text, "1", "1000");
    EXPECT_EQ(patches(), 8) << name;
  }
  folder_.write("processor_config.json",
                R"({"image_processor": {"max_pixels": 10000, "min_pixels": 5000}})");
  EXPECT_EQ(patches(), 40);
  ProcessorOptions options;
  options.min_pixels = 1;
  options.max_pixels = 1000;
  EXPECT_EQ(patches(options), 8);
  options.min_pixels = 5000;
  expect_user_error(ExitCode::config, {"data.image", "5000", "1000"}, [&] { make(options); });
}

TEST_F(ModelFolder, BadProcessorFilesAreNamed) {
  const std::string name = "preprocessor_config.json";
  fails_with("[]", {name, "object"});
  fails_with("{", {name, "not valid JSON"});
  fails_with(R"({"patch_size": 0})", {name, "\"patch_size\"", "0"});
  fails_with(R"({"merge_size": "2"})", {name, "\"merge_size\""});
  fails_with(R"({"resample": 5})", {name, "\"resample\"", "5"});
  fails_with(R"({"image_mean": [1, 2]})", {name, "\"image_mean\"", "[1,2]"});
  fails_with(R"({"image_std": [1, 0, 1]})", {name, "\"image_std\"", "positive"});
  fails_with(R"({"do_normalize": false})", {name, "\"do_normalize\""});
  fails_with(R"({"min_pixels": 10, "max_pixels": 5})", {name, "10", "5"});
  fails_with(R"({"size": 4})", {name, "\"size\""});
  fails_with(R"({"patch_size": 16})", {"vision_config", "\"patch_size\"", "14", "16"});
}

TEST_F(ModelFolder, ContradictionsWithTheModelAreNamed) {
  const json good = config_;
  config_["text_config"]["vocab_size"] = 300;
  fails({"config.json", "\"vocab_size\" is 300", "tokenizer.json"});
  config_ = good;
  config_["image_token_id"] = 5;
  fails({"config.json", "\"image_token_id\" is 5", "332"});
  config_ = good;
  config_["model_type"] = "llava";
  fails({"\"llava\"", "qwen2_vl"});
  config_.erase("model_type");
  fails({"\"model_type\" is missing"});
  config_ = good;
  fs::remove(folder_.path() / "tokenizer.json");
  fails({"tokenizer.json", "nothing"});
}

}  // namespace
}  // namespace medvqa::data
