// Whole runs: stopping and going on, what they leave behind, and when they refuse.
#include "medvqa/train/trainer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>

#include "medvqa/io/safetensors.h"
#include "medvqa/io/sha256.h"
#include "tests/train/train_test_support.h"

namespace medvqa::train {
namespace {

class Training : public ::testing::Test {
 protected:
  // Dropout, evaluation, 8-bit and f32 optimizer states: everything a resume must bring back.
  Config config(const std::string& output, const std::vector<std::string>& overrides = {}) {
    json c = fixture_config(folder_);
    c["data"]["validation"] = validation_like_train();
    c["lora"]["dropout"] = 0.2;
    c["train"].update({{"max_steps", 6}, {"eval_every", 2}, {"save_every", 3}});
    c["output"] = (folder_.path() / output).string();
    return load(folder_, c, overrides);
  }
  fs::path at(const std::string& name) const { return folder_.path() / name; }

  // What differs between two finished runs, but for wall times and the folder's own name.
  std::vector<std::string> differences(const std::string& a, const std::string& b) const {
    std::vector<std::string> found;
    for (const char* name :
         {"adapter/adapter_model.safetensors", "adapter/adapter_config.json",
          "checkpoints/latest/training.safetensors", "checkpoints/latest/state.json"}) {
      if (bytes_of_file(at(a) / name) != bytes_of_file(at(b) / name)) found.emplace_back(name);
    }
    if (metrics_of(at(a)) != metrics_of(at(b))) found.emplace_back("metrics.jsonl");
    return found;
  }
  TempFolder folder_;
};

using Names = std::vector<std::string>;

std::size_t data_bytes(const io::SafetensorsFile& file) {
  std::uint64_t end = 0;
  for (const auto& entry : file.entries()) end = std::max(end, entry.second.end);
  return static_cast<std::size_t>(end);
}

TEST_F(Training, AResumedRunIsTheStraightRunToTheByte) {
  EXPECT_EQ(train(config("straight"), {}), Outcome::finished);
  for (const int step : {0, 1, 3, 5}) {
    const std::string name = "stopped" + std::to_string(step);
    const Config c = config(name);
    EXPECT_EQ(train(c, stop_after(step)), Outcome::stopped);
    EXPECT_EQ(fs::read_symlink(at(name) / "checkpoints/latest").string(),
              "step-00000" + std::to_string(step));
    EXPECT_FALSE(fs::exists(at(name) / "adapter"));
    EXPECT_EQ(train(c, to_the_end({.resume = "auto"})), Outcome::finished);
    EXPECT_EQ(differences("straight", name), Names{}) << step;
  }
  EXPECT_EQ(metrics_of(at("straight")).size(), 6u + 3u);
}

TEST_F(Training, AKilledRunLosesNothingButTime) {
  EXPECT_EQ(train(config("straight"), {}), Outcome::finished);
  const Config c = config("killed");
  EXPECT_EQ(train(c, {}), Outcome::finished);
  // As if it had died in step 5: a later step and half a line in the log, no adapter.
  fs::remove_all(at("killed") / "adapter");
  fs::remove_all(at("killed") / "checkpoints/step-000006");
  fs::remove(at("killed") / "checkpoints/latest");
  fs::create_directory_symlink("step-000003", at("killed") / "checkpoints/latest");
  std::ofstream(at("killed") / "metrics.jsonl", std::ios::app) << "{\"event\":\"st";
  EXPECT_EQ(train(c, to_the_end({.resume = "auto"})), Outcome::finished);
  EXPECT_EQ(differences("straight", "killed"), Names{});
}

// Whether the comparison above would notice a restore that is wrong in one place.
TEST_F(Training, ABrokenRestoreIsNoticed) {
  EXPECT_EQ(train(config("straight"), {}), Outcome::finished);
  const Config c = config("broken");
  EXPECT_EQ(train(c, stop_after(3)), Outcome::stopped);
  const fs::path file = at("broken") / "checkpoints/step-000003/training.safetensors";
  const std::string good = bytes_of_file(file);
  std::map<std::string, std::size_t> places;  // a byte of every kind of tensor
  {
    const io::SafetensorsFile tensors(file);
    for (const auto& entry : tensors.entries()) {
      const std::string kind = entry.first.substr(entry.first.rfind('.'));
      const std::uint64_t size = entry.second.end - entry.second.begin;
      places[kind + "/" + entry.second.dtype] =
          static_cast<std::size_t>(entry.second.begin + size / 2 + 1);
    }
  }
  const std::size_t data = good.size() - data_bytes(io::SafetensorsFile(file));
  ASSERT_GE(places.size(), 5u);
  for (const auto& place : places) {
    std::string bad = good;
    bad[data + place.second] = static_cast<char>(bad[data + place.second] ^ 0x40);
    std::ofstream(file, std::ios::binary) << bad;
    io::write_manifest(file.parent_path());
    const std::string copy = "broken-copy";
    fs::remove_all(at(copy));
    fs::copy(at("broken"), at(copy), fs::copy_options::recursive | fs::copy_options::copy_symlinks);
    EXPECT_EQ(train(config(copy), to_the_end({.resume = "auto"})), Outcome::finished);
    EXPECT_NE(differences("straight", copy), Names{}) << place.first;
  }
}

TEST_F(Training, AFinishedRunResumedWritesTheSameAdapter) {
  const Config c = config("run");
  EXPECT_EQ(train(c, {}), Outcome::finished);
  fs::copy(at("run"), at("before"), fs::copy_options::recursive | fs::copy_options::copy_symlinks);
  EXPECT_EQ(train(c, to_the_end({.resume = "auto"})), Outcome::finished);
  EXPECT_EQ(differences("before", "run"), Names{});
  EXPECT_EQ(bytes_of_file(at("run") / "adapter/README.md"),
            bytes_of_file(at("before") / "adapter/README.md"));
}

TEST_F(Training, MetricsHaveTheDocumentedKeys) {
  train(config("run", {"train.log_every=4"}), {});
  std::vector<std::int64_t> steps;
  for (const json& line : metrics_of(at("run"))) {
    if (line.at("event") == "eval") {
      for (const char* key : {"step", "loss", "token_accuracy"}) {
        EXPECT_TRUE(line.at(key).is_number()) << key;
      }
      continue;
    }
    EXPECT_EQ(line.at("event"), "step");
    steps.push_back(line.at("step"));
    for (const char* key :
         {"epoch", "loss", "learning_rate", "grad_norm", "label_tokens", "tokens", "samples"}) {
      EXPECT_TRUE(line.at(key).is_number()) << key;
    }
    EXPECT_EQ(line.size(), 9u);
  }
  EXPECT_EQ(steps, (std::vector<std::int64_t>{4, 6}));  // every 4th, and the last
  std::ifstream in(at("run") / "metrics.jsonl");
  std::string first;
  std::getline(in, first);
  EXPECT_TRUE(json::parse(first).contains("seconds") || json::parse(first)["event"] == "eval");
}

TEST_F(Training, ASecondRunIntoTheSameFolderTouchesNothing) {
  const Config c = config("run", {"train.max_steps=1"});
  EXPECT_EQ(train(c, {}), Outcome::finished);
  const std::string adapter = bytes_of_file(at("run") / "adapter/adapter_model.safetensors");
  const std::string metrics = bytes_of_file(at("run") / "metrics.jsonl");
  const auto written = fs::last_write_time(at("run") / "config.resolved.json");
  expect_user_error(ExitCode::config, {"not empty", "--resume auto", "--overwrite"},
                    [&] { train(c, {}); });
  EXPECT_EQ(bytes_of_file(at("run") / "adapter/adapter_model.safetensors"), adapter);
  EXPECT_EQ(bytes_of_file(at("run") / "metrics.jsonl"), metrics);
  EXPECT_EQ(fs::last_write_time(at("run") / "config.resolved.json"), written);
  EXPECT_EQ(train(c, to_the_end({.overwrite = true})), Outcome::finished);
  EXPECT_EQ(bytes_of_file(at("run") / "adapter/adapter_model.safetensors"), adapter);
}

TEST_F(Training, OtherSettingsThanTheCheckpointsAreRefusedAndNothingIsTouched) {
  EXPECT_EQ(train(config("run"), stop_after(3)), Outcome::stopped);
  const std::string resolved = bytes_of_file(at("run") / "config.resolved.json");
  const std::string log = bytes_of_file(at("run") / "log.txt");
  const Config other = config("run", {"train.learning_rate=1e-3"});
  for (const bool dry : {true, false}) {
    TrainerOptions options = to_the_end({.resume = "auto"});
    options.dry_run = dry;
    expect_user_error(ExitCode::config, {"step-000003", "train.learning_rate was 0.002"},
                      [&] { train(other, options); });
  }
  EXPECT_EQ(bytes_of_file(at("run") / "config.resolved.json"), resolved);
  EXPECT_EQ(bytes_of_file(at("run") / "log.txt"), log);
  EXPECT_EQ(train(other, to_the_end({.resume = "auto", .allow_changes = true})), Outcome::finished);
  EXPECT_EQ(metrics_of(at("run")).back().at("step"), 6);
}

// Makes a value of the starting adapter infinite.
void poison(const fs::path& adapter) {
  const fs::path file = adapter / "adapter_model.safetensors";
  std::string bytes = bytes_of_file(file);
  const float infinite = std::numeric_limits<float>::infinity();
  std::memcpy(bytes.data() + bytes.size() - sizeof(float), &infinite, sizeof(infinite));
  std::ofstream(file, std::ios::binary) << bytes;
}

TEST_F(Training, AnInfiniteLossStopsBeforeTheUpdate) {
  fs::copy(fixture() / "adapter", at("start"));
  poison(at("start"));
  const Config c = config("run", {"lora.init_from=" + at("start").string()});
  expect_user_error(ExitCode::diverged, {"step 1", "not finite", "--resume auto"},
                    [&] { train(c, {}); });
  EXPECT_FALSE(fs::exists(at("run") / "adapter"));
  EXPECT_EQ(metrics_of(at("run")).size(), 0u);
}

TEST_F(Training, DivergingLaterLeavesTheLastCheckpointWhole) {
  const Config good = config("run");
  EXPECT_EQ(train(good, stop_after(3)), Outcome::stopped);
  const fs::path saved = at("run") / "checkpoints/step-000003";
  const std::string before = bytes_of_file(saved / "training.safetensors");
  fs::copy(saved, at("poisoned"));
  std::string bad = before;
  const io::SafetensorsFile tensors(saved / "training.safetensors");
  for (const auto& entry : tensors.entries()) {
    if (!entry.first.ends_with(".lora_B")) continue;
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const std::size_t data = bad.size() - data_bytes(tensors);
    std::memcpy(bad.data() + data + entry.second.begin, &nan, sizeof(nan));
    break;
  }
  std::ofstream(at("poisoned") / "training.safetensors", std::ios::binary) << bad;
  io::write_manifest(at("poisoned"));
  expect_user_error(ExitCode::diverged, {"step 4", "not finite"},
                    [&] { train(good, to_the_end({.resume = at("poisoned").string()})); });
  EXPECT_EQ(bytes_of_file(saved / "training.safetensors"), before);
  EXPECT_EQ(train(good, to_the_end({.resume = "auto"})), Outcome::finished);
  EXPECT_EQ(train(config("straight"), {}), Outcome::finished);
  EXPECT_EQ(differences("straight", "run"), Names{});
}

}  // namespace
}  // namespace medvqa::train
