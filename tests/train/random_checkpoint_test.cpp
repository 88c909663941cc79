#include "medvqa/train/random_checkpoint.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <set>

#include "medvqa/data/processor.h"
#include "medvqa/io/checkpoint_folder.h"
#include "medvqa/io/model_config.h"
#include "medvqa/models/model.h"
#include "medvqa/ops/dry_backend.h"
#include "medvqa/quant/nf4.h"
#include "tests/train/train_test_support.h"

namespace medvqa::train {
namespace {

class RandomModel : public ::testing::Test {
 protected:
  fs::path make(const std::string& name, std::uint64_t seed, bool nf4,
                const json& config = preset_config("tiny-qwen2-vl")) {
    RandomCheckpoint request;
    request.config = config;
    request.out = folder_.path() / name;
    request.seed = seed;
    request.nf4 = nf4;
    write_random_checkpoint(request);
    return request.out;
  }
  TempFolder folder_;
};

// What the architecture reads.
std::vector<nn::TensorRequest> requests(const json& config) {
  ops::DryBackend backend({});
  const nn::DescribedWeights source({});
  Arena weights("weights"), adapters("adapters");
  nn::Builder builder(backend, source, weights, adapters, DType::bf16, {}, nn::QuantizeOnLoad::no);
  models::build_model(config, builder);
  return source.requests();
}

std::vector<float> dense_values(const io::CheckpointFolder& folder, const nn::TensorRequest& r) {
  const nn::HostTensor t = folder.dense(r);
  EXPECT_EQ(t.dtype, DType::bf16) << r.name;
  std::vector<float> values(t.bytes.size() / 2);
  for (std::size_t i = 0; i < values.size(); ++i) {
    BFloat16 v;
    std::memcpy(&v, t.bytes.data() + 2 * i, 2);
    values[i] = static_cast<float>(v);
  }
  return values;
}

TEST_F(RandomModel, TheSameSeedGivesTheSameBytes) {
  for (const bool nf4 : {false, true}) {
    const std::string kind = nf4 ? "-nf4" : "";
    const fs::path a = make("a" + kind, 7, nf4), b = make("b" + kind, 7, nf4);
    const fs::path other = make("c" + kind, 8, nf4);
    std::size_t files = 0;
    for (const auto& entry : fs::directory_iterator(a)) {
      ++files;
      EXPECT_EQ(bytes_of_file(entry.path()), bytes_of_file(b / entry.path().filename()));
    }
    EXPECT_GE(files, 5u);
    EXPECT_NE(bytes_of_file(a / "model.safetensors"), bytes_of_file(other / "model.safetensors"));
  }
}

TEST_F(RandomModel, OpensAndHoldsExactlyWhatTheArchitectureReads) {
  for (const bool nf4 : {false, true}) {
    const io::CheckpointFolder folder(make(nf4 ? "q" : "d", 1, nf4));
    EXPECT_EQ(folder.quantized(), nf4);
    std::set<std::string> names;
    for (const nn::TensorRequest& r : requests(folder.config())) {
      names.insert(r.name);
      EXPECT_EQ(folder.nf4(r).has_value(), nf4 && r.quantizable) << r.name;
    }
    const auto stored = folder.names();
    EXPECT_EQ(std::set<std::string>(stored.begin(), stored.end()), names);
  }
}

// N(0, 1 / fan_in), N(0, 1), 1 + N(0, 0.1^2): mean and spread within five standard errors.
TEST_F(RandomModel, ValuesHaveTheDocumentedSpread) {
  const io::CheckpointFolder folder(make("m", 5, false));
  std::set<nn::TensorRole> seen;
  for (const nn::TensorRequest& r : requests(folder.config())) {
    const std::vector<float> v = dense_values(folder, r);
    double sum = 0, squares = 0;
    for (const float x : v) sum += static_cast<double>(x);
    const auto n = static_cast<double>(v.size());
    const double mean = sum / n;
    for (const float x : v) squares += std::pow(static_cast<double>(x) - mean, 2);
    const double spread = std::sqrt(squares / n);
    const double fan_in = n / static_cast<double>(r.shape.front());
    const double wanted = r.role == nn::TensorRole::linear      ? 1 / std::sqrt(fan_in)
                          : r.role == nn::TensorRole::embedding ? 1
                                                                : 0.1;
    EXPECT_NEAR(mean, r.role == nn::TensorRole::norm ? 1 : 0, 5 * wanted / std::sqrt(n)) << r.name;
    EXPECT_NEAR(spread, wanted, 5 * wanted / std::sqrt(2 * n)) << r.name;
    seen.insert(r.role);
  }
  EXPECT_GE(seen.size(), 4u);
}

// Absolute error of an nf4 value: half the widest gap of its code, 0.14 of the block's maximum,
// and the rounding of the maximum itself.
TEST_F(RandomModel, TheNf4ModelIsTheBf16ModelRounded) {
  const io::CheckpointFolder dense(make("d", 2, false)), four_bit(make("q", 2, true));
  std::size_t compared = 0;
  for (const nn::TensorRequest& r : requests(dense.config())) {
    const std::vector<float> x = dense_values(dense, r);
    const auto q = four_bit.nf4(r);
    if (!q) {
      EXPECT_EQ(dense_values(four_bit, r), x) << r.name;
      continue;
    }
    ASSERT_TRUE(q->nested);
    float map[256], nested[1 << 12];
    std::memcpy(map, q->nested_map.bytes.data(), sizeof(map));
    ASSERT_LE(q->nested_absmax.bytes.size(), sizeof(nested));
    std::memcpy(nested, q->nested_absmax.bytes.data(), q->nested_absmax.bytes.size());
    for (std::size_t i = 0; i < x.size(); ++i) {
      const std::size_t block = i / 64;
      const auto packed = static_cast<unsigned>(q->packed.bytes[i / 2]);
      const unsigned code = i % 2 == 0 ? packed >> 4 : packed & 15u;
      const float absmax =
          map[static_cast<unsigned>(q->absmax.bytes[block])] * nested[block / 256] +
          q->nested_offset;
      ASSERT_LE(std::abs(quant::kNf4Code[code] * absmax - x[i]), 0.2f * absmax) << r.name << i;
    }
    ++compared;
  }
  EXPECT_GT(compared, 20u);
}

TEST_F(RandomModel, TokenizerAndProcessorLoad) {
  const fs::path folder = make("m", 0, true);
  const json config = io::read_model_config(folder);
  const auto processor = data::make_processor(folder, config, {});
  data::Record record;
  record.id = "x";
  record.question = "Où est le cœur? 肺\n\t5–7 mm";
  record.answer = "yes";
  record.columns = {{"question", record.question}, {"answer", record.answer}};
  const data::Example e = processor->prepare(record);
  std::int64_t largest = 0;
  for (const std::int32_t id : e.ids) largest = std::max<std::int64_t>(largest, id);
  EXPECT_LT(largest, 320);
  EXPECT_EQ(e.label_count(), 4);  // three bytes and the end of turn
}

TEST_F(RandomModel, FollowsTheFixturesConfiguration) {
  json config = json::parse(bytes_of_file(fixture() / "checkpoint/config.json"));
  config["bos_token_id"] = nullptr;  // as several checkpoints of the Hub have it
  const fs::path folder = make("m", 0, false, config);
  const json tokenizer = json::parse(bytes_of_file(folder / "tokenizer.json"));
  std::map<std::string, std::int64_t> ids;
  std::set<std::int64_t> distinct;
  for (const json& token : tokenizer.at("added_tokens")) {
    ids[token.at("content")] = token.at("id");
    distinct.insert(token.at("id").get<std::int64_t>());
  }
  EXPECT_EQ(ids.at("<|image_pad|>"), 332);
  EXPECT_EQ(ids.at("<|vision_start|>"), 329);
  EXPECT_EQ(ids.at("<|im_end|>"), 322);
  EXPECT_EQ(distinct.size(), 14u);
  EXPECT_LT(*distinct.rbegin(), 335);
  EXPECT_NO_THROW(data::make_processor(folder, io::read_model_config(folder), {}));
}

TEST_F(RandomModel, CopiesAGivenTokenizer) {
  RandomCheckpoint request;
  request.config = json::parse(bytes_of_file(fixture() / "checkpoint/config.json"));
  request.out = folder_.path() / "m";
  request.tokenizer = fixture() / "checkpoint";
  write_random_checkpoint(request);
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"}) {
    EXPECT_EQ(bytes_of_file(request.out / name), bytes_of_file(*request.tokenizer / name));
  }
  request.out = folder_.path() / "n";
  request.tokenizer = folder_.path();
  expect_user_error(ExitCode::model, {"--tokenizer", folder_.path().string()},
                    [&] { write_random_checkpoint(request); });
  EXPECT_FALSE(fs::exists(request.out));
}

TEST_F(RandomModel, AUsedFolderIsRefusedAndLeftAlone) {
  folder_.write("m/precious.txt", "mine");
  expect_user_error(ExitCode::usage, {"m", "not empty"}, [&] { make("m", 0, false); });
  EXPECT_EQ(folder_.read("m/precious.txt"), "mine");
  EXPECT_FALSE(fs::exists(folder_.path() / "m/config.json"));
  fs::create_directories(folder_.path() / "empty");
  EXPECT_NO_THROW(make("empty", 0, false));
  expect_user_error(ExitCode::model, {"llama_9"}, [&] {
    make("n", 0, false, json{{"model_type", "llama_9"}});
  });
  EXPECT_FALSE(fs::exists(folder_.path() / "n"));
  std::size_t left = 0;
  for (const auto& entry : fs::directory_iterator(folder_.path())) {
    left += entry.path().filename().string().starts_with(".tmp") ? 1 : 0;
  }
  EXPECT_EQ(left, 0u);
}

TEST_F(RandomModel, PresetsBuildAndUnknownOnesAreListed) {
  for (const std::string& name : preset_names()) {
    EXPECT_GT(requests(io::normalized_config(preset_config(name), name)).size(), 10u) << name;
  }
  expect_user_error(ExitCode::usage, {"big", "tiny-qwen2-vl", "qwen2-vl-7b"},
                    [] { preset_config("big"); });
}

}  // namespace
}  // namespace medvqa::train
