#include "medvqa/train/run_folder.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "medvqa/io/sha256.h"
#include "tests/train/train_test_support.h"

namespace medvqa::train {
namespace {

class Run : public ::testing::Test {
 protected:
  Run() : config_(load(folder_, fixture_config(folder_))), run_(folder_.path() / "run") {}

  Session& session() {
    if (!session_) session_ = std::make_unique<Session>(config_, Session::Purpose::train);
    return *session_;
  }
  RunFolder open(const FolderRules& rules = {}) { return {run_, rules, config_.resolved}; }
  void save(RunFolder& run, const Progress& progress, std::int64_t keep = 2) {
    run.save_checkpoint(session().backend(), session().model(), progress, keep);
  }
  std::set<std::string> checkpoints() const {
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(run_ / "checkpoints")) {
      names.insert(entry.path().filename().string());
    }
    return names;
  }
  std::string target(const std::string& link) const {
    return fs::read_symlink(run_ / "checkpoints" / link).string();
  }
  std::string metrics() const { return folder_.read("run/metrics.jsonl"); }

  TempFolder folder_;
  Config config_;
  fs::path run_;
  std::unique_ptr<Session> session_;
};

using Names = std::set<std::string>;

Progress after(std::int64_t step) {
  Progress p;
  p.step = step;
  return p;
}

TEST_F(Run, MakesTheFolderWithTheResolvedConfiguration) {
  const RunFolder run = open();
  EXPECT_EQ(run.path(), run_);
  EXPECT_FALSE(run.checkpoint().has_value());
  EXPECT_EQ(json::parse(folder_.read("run/config.resolved.json")), json(config_.resolved));
  fs::create_directories(folder_.path() / "empty");
  EXPECT_NO_THROW(RunFolder(folder_.path() / "empty", {}, config_.resolved));
}

TEST_F(Run, AUsedFolderIsRefusedAndLeftAlone) {
  folder_.write("run/precious.txt", "mine");
  folder_.write("run/metrics.jsonl", "old\n");
  expect_user_error(ExitCode::config, {run_.string(), "not empty", "--resume auto", "--overwrite"},
                    [&] { open(); });
  EXPECT_EQ(folder_.read("run/precious.txt"), "mine");
  EXPECT_EQ(metrics(), "old\n");
  EXPECT_FALSE(fs::exists(run_ / "config.resolved.json"));
  folder_.write("file", "x");
  expect_user_error(ExitCode::config, {"file"},
                    [&] { RunFolder(folder_.path() / "file", {}, config_.resolved); });
  EXPECT_EQ(folder_.read("file"), "x");
}

TEST_F(Run, OverwriteRemovesWhatARunWritesAndNothingElse) {
  for (const char* name : {"metrics.jsonl", "checkpoints/step-000001/state.json",
                           "adapter/adapter_config.json", "precious.txt", "notes/a.txt"}) {
    folder_.write(std::string("run/") + name, "old");
  }
  open({.overwrite = true});
  EXPECT_FALSE(fs::exists(run_ / "metrics.jsonl"));
  EXPECT_FALSE(fs::exists(run_ / "checkpoints"));
  EXPECT_FALSE(fs::exists(run_ / "adapter"));
  EXPECT_EQ(folder_.read("run/precious.txt"), "old");
  EXPECT_EQ(folder_.read("run/notes/a.txt"), "old");
}

TEST_F(Run, AFolderThatCannotBeMadeIsAnIoError) {
  folder_.write("file", "x");
  expect_user_error(ExitCode::io, {"file/run"},
                    [&] { RunFolder(folder_.path() / "file/run", {}, config_.resolved); });
}

TEST_F(Run, ResumeFindsTheLatestOrTheOneNamed) {
  EXPECT_FALSE(open({.resume = "auto"}).checkpoint().has_value());
  RunFolder run = open({.resume = "auto"});
  save(run, after(1));
  save(run, after(2));
  EXPECT_EQ(open({.resume = "auto"}).checkpoint(), fs::canonical(run_ / "checkpoints/step-000002"));
  const std::string first = (run_ / "checkpoints/step-000001").string();
  EXPECT_EQ(open({.resume = first}).checkpoint(), fs::canonical(first));
  // With a checkpoint to go on from, --overwrite removes nothing.
  open({.resume = "auto", .overwrite = true});
  EXPECT_TRUE(fs::exists(run_ / "checkpoints/step-000002/state.json"));
  expect_user_error(ExitCode::config, {"nowhere", "--resume"},
                    [&] { open({.resume = "nowhere"}); });
}

TEST_F(Run, OldCheckpointsGoTheBestStays) {
  RunFolder run = open();
  save(run, {.step = 1, .best_loss = 0.5, .best_step = 1});
  EXPECT_EQ(target("best"), "step-000001");
  for (std::int64_t step = 2; step <= 5; ++step) {
    save(run, {.step = step, .best_loss = 0.5, .best_step = 1});
    EXPECT_EQ(target("latest"), "step-00000" + std::to_string(step));
    EXPECT_EQ(target("best"), "step-000001");
  }
  EXPECT_EQ(checkpoints(), (Names{"best", "latest", "step-000001", "step-000004", "step-000005"}));
  save(run, {.step = 6, .best_loss = 0.25, .best_step = 6}, 3);
  EXPECT_EQ(target("best"), "step-000006");
  EXPECT_EQ(checkpoints(), (Names{"best", "latest", "step-000004", "step-000005", "step-000006"}));
}

// A better loss may be found at a step that is not saved: `best` then keeps what it points to.
TEST_F(Run, TheBestSavedStaysWhenABetterOneWasNotSaved) {
  RunFolder run = open();
  save(run, {.step = 1, .best_loss = 0.5, .best_step = 1});
  for (std::int64_t step = 3; step <= 6; ++step) {
    save(run, {.step = step, .best_loss = 0.25, .best_step = 2});
  }
  EXPECT_EQ(target("best"), "step-000001");
  EXPECT_TRUE(fs::exists(run_ / "checkpoints/best/state.json"));
}

// Going on from an older checkpoint leaves newer ones of the abandoned way behind.
TEST_F(Run, TheCheckpointJustWrittenIsNeverPruned) {
  RunFolder run = open();
  for (const std::int64_t step : {7, 8}) save(run, after(step));
  save(run, after(3));
  EXPECT_EQ(target("latest"), "step-000003");
  EXPECT_TRUE(fs::exists(run_ / "checkpoints/latest/state.json"));
}

TEST_F(Run, AMillionthStepIsNewerThanTheOneBefore) {
  RunFolder run = open();
  for (const std::int64_t step : {999998, 999999, 1000000}) save(run, after(step));
  EXPECT_EQ(checkpoints(), (Names{"latest", "step-1000000", "step-999999"}));
}

TEST_F(Run, MetricsGrowAndAreCutOnResume) {
  {
    RunFolder run = open();
    run.keep_metrics_until(0);
    for (int step = 1; step <= 4; ++step) run.log({{"event", "step"}, {"step", step}});
    run.log({{"event", "eval"}, {"step", 4}});
  }
  const std::string all = metrics();
  EXPECT_EQ(std::count(all.begin(), all.end(), '\n'), 5);
  std::ofstream(run_ / "metrics.jsonl", std::ios::app) << R"({"event": "step", "st)";
  RunFolder again = open({.resume = "auto"});
  again.keep_metrics_until(3);
  EXPECT_EQ(metrics(), all.substr(0, all.find(R"({"event":"step","step":4})")));
  again.log({{"event", "step"}, {"step", 4}});
  EXPECT_EQ(metrics(), all.substr(0, all.find(R"({"event":"eval")")));
}

TEST_F(Run, ACheckpointBringsBackEveryByte) {
  RunFolder run = open();
  const Gradients g = gradients_of(session());
  update(session().backend(), session().model(), g.result.grad_norm, {.learning_rate = 1e-2});
  save(run, {.step = 3, .best_loss = 0.125, .best_step = 2});
  const std::string bytes = folder_.read("run/checkpoints/step-000003/training.safetensors");
  Session other(config_, Session::Purpose::train);
  const Progress p =
      restore_checkpoint(run_ / "checkpoints/latest", other.backend(), other.model());
  EXPECT_EQ(p.step, 3);
  EXPECT_EQ(p.best_step, 2);
  EXPECT_EQ(p.best_loss, 0.125);
  RunFolder copy(folder_.path() / "copy", {}, config_.resolved);
  copy.save_checkpoint(other.backend(), other.model(), p, 2);
  EXPECT_EQ(folder_.read("copy/checkpoints/step-000003/training.safetensors"), bytes);
}

TEST_F(Run, ADamagedOrForeignCheckpointIsRefused) {
  RunFolder run = open();
  save(run, after(1));
  const std::string state = "run/checkpoints/step-000001/state.json";
  const std::string tensors = "run/checkpoints/step-000001/training.safetensors";
  const std::string good_state = folder_.read(state), good_tensors = folder_.read(tensors);
  const auto expect_refused = [&](const std::vector<std::string>& parts) {
    expect_user_error(ExitCode::model, parts, [&] {
      restore_checkpoint(run_ / "checkpoints/latest", session().backend(), session().model());
    });
  };
  // One bit, which neither length nor header shows.
  std::string bit = good_tensors;
  bit[bit.size() / 2] = static_cast<char>(bit[bit.size() / 2] ^ 0x10);
  folder_.write(tensors, bit);
  expect_refused({"training.safetensors", "altered", "damaged", "--overwrite"});
  folder_.write(tensors, good_tensors.substr(0, good_tensors.size() - 1));
  expect_refused({"training.safetensors"});
  folder_.write(tensors, "");
  expect_refused({"training.safetensors"});
  fs::remove(folder_.path() / tensors);
  expect_refused({"training.safetensors"});
  folder_.write(tensors, good_tensors);
  for (const char* text :
       {"", "{", "[]", "{}", R"({"step": -1, "best_step": 0})", R"({"step": "1", "best_step": 0})",
        R"({"step": 1, "best_step": 0, "best_loss": "x"})"}) {
    folder_.write(state, text);
    expect_refused({"state.json", "altered"});
    io::write_manifest(run_ / "checkpoints/step-000001");
    expect_refused({"state.json"});
  }
  folder_.write(state, good_state);
  io::write_manifest(run_ / "checkpoints/step-000001");
  fs::remove(run_ / "checkpoints/step-000001/manifest.json");
  expect_refused({"manifest.json"});
  io::write_manifest(run_ / "checkpoints/step-000001");
  for (const char* setting : {"train.optimizer=adamw", "lora.r=8", "lora.mlp=false"}) {
    json c = fixture_config(folder_);
    c["lora"].erase("init_from");
    const Config other = load(folder_, c, {setting});
    Session foreign(other, Session::Purpose::train);
    expect_user_error(ExitCode::model, {"step-000001", "another model"}, [&] {
      restore_checkpoint(run_ / "checkpoints/step-000001", foreign.backend(), foreign.model());
    });
  }
}

TEST_F(Run, ADamagedCheckpointNamesAnEarlierOne) {
  RunFolder run = open();
  save(run, after(1));
  save(run, after(2));
  const std::string tensors = "run/checkpoints/step-000002/training.safetensors";
  std::string bytes = folder_.read(tensors);
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  folder_.write(tensors, bytes);
  const fs::path earlier = run_ / "checkpoints/step-000001";
  expect_user_error(ExitCode::model,
                    {"step-000002/training.safetensors", "--resume " + earlier.string()}, [&] {
                      restore_checkpoint(run_ / "checkpoints/step-000002", session().backend(),
                                         session().model());
                    });
  EXPECT_NO_THROW(restore_checkpoint(earlier, session().backend(), session().model()));
}

TEST_F(Run, WhatAKilledProcessLeftHalfWrittenGoes) {
  {
    RunFolder run = open();
    save(run, after(1));
    save(run, after(2));
  }
  for (const char* name :
       {"checkpoints/.tmp-step-000003-77/training.safetensors", "checkpoints/.tmp-latest",
        "checkpoints/.old-step-000002-77/state.json", ".tmp-metrics.jsonl-77",
        ".tmp-adapter-77/README.md", ".tmp-mine", "checkpoints/.tmp-mine"}) {
    folder_.write(std::string("run/") + name, "half");
  }
  expect_user_error(ExitCode::config, {"not empty"}, [&] { open(); });
  EXPECT_TRUE(fs::exists(run_ / "checkpoints/.tmp-step-000003-77"));
  open({.resume = "auto"});
  EXPECT_EQ(checkpoints(), (Names{".tmp-mine", "latest", "step-000001", "step-000002"}));
  EXPECT_FALSE(fs::exists(run_ / ".tmp-metrics.jsonl-77"));
  EXPECT_FALSE(fs::exists(run_ / ".tmp-adapter-77"));
  EXPECT_TRUE(fs::exists(run_ / ".tmp-mine"));
}

// Killed while step 2 was replaced: the link points to what is not there.
TEST_F(Run, AutoFindsTheNewestWhereTheLinkIsBroken) {
  RunFolder run = open();
  for (const std::int64_t step : {1, 2, 3}) save(run, after(step), 3);
  fs::remove_all(run_ / "checkpoints/step-000003");
  EXPECT_EQ(open({.resume = "auto"}).checkpoint(), fs::canonical(run_ / "checkpoints/step-000002"));
  fs::remove(run_ / "checkpoints/latest");
  EXPECT_EQ(open({.resume = "auto"}).checkpoint(), fs::canonical(run_ / "checkpoints/step-000002"));
}

}  // namespace
}  // namespace medvqa::train
