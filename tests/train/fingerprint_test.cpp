#include "medvqa/train/fingerprint.h"

#include <gtest/gtest.h>

#include <set>

#include "medvqa/train/config_table.h"
#include "tests/train/train_test_support.h"

namespace medvqa::train {
namespace {

class Fingerprint : public ::testing::Test {
 protected:
  static json of(const Config& config, std::int64_t steps = 4) {
    const ModelInputs model = open_model(config, true);
    return fingerprint_of(config, model, open_data(config, model), steps);
  }
  json with(const std::vector<std::string>& overrides, std::int64_t steps = 4) {
    json c = fixture_config(folder_);
    c["lora"].erase("init_from");
    return of(load(folder_, c, overrides), steps);
  }
  // A checkpoint saved after `step` steps of a run with this fingerprint.
  fs::path saved(const json& fingerprint, std::int64_t step = 2) {
    const json state{{"step", step}, {"best_step", 0}, {"run", fingerprint}};
    return folder_.write("step-000002/state.json", state.dump()).parent_path();
  }
  TempFolder folder_;
};

TEST_F(Fingerprint, HoldsEveryKeyThatMayNotChange) {
  const json keys = with({}).at("keys");
  std::set<std::string> free;
  for (const ConfigKey& key : config_keys()) {
    EXPECT_EQ(keys.contains(key.path), !may_change(key.path)) << key.path;
    if (may_change(key.path)) free.insert(key.path);
  }
  EXPECT_EQ(free, (std::set<std::string>{"device", "output", "data.threads", "train.epochs",
                                         "train.max_steps", "train.recompute", "train.offload",
                                         "train.log_every", "train.eval_every", "train.save_every",
                                         "train.keep"}));
}

TEST_F(Fingerprint, AChangedSettingIsNamedWithBothValues) {
  const fs::path checkpoint = saved(with({}));
  struct Change {
    const char* key;
    const char* value;
    const char* before;
  };
  for (const Change& c : std::vector<Change>{{"train.seed", "1", "3407"},
                                             {"train.learning_rate", "0.5", "0.002"},
                                             {"train.schedule", "cosine", "linear"},
                                             {"train.warmup_steps", "1", "2"},
                                             {"train.weight_decay", "0.5", "0.01"},
                                             {"train.max_grad_norm", "0.5", "1.0"},
                                             {"train.optimizer", "adamw", "adamw8bit"},
                                             {"train.batch_size", "1", "2"},
                                             {"train.gradient_accumulation", "1", "2"},
                                             {"lora.r", "8", "16"},
                                             {"lora.alpha", "8", "16"},
                                             {"lora.dropout", "0.25", "0.0"},
                                             {"lora.rslora", "true", "false"},
                                             {"lora.vision", "false", "true"},
                                             {"lora.targets", ".*q_proj", "null"},
                                             {"model.compute", "bf16", "f32"},
                                             {"data.prompt", "Q: {question}", "{question}"},
                                             {"data.system", "Short.", "null"},
                                             {"data.shuffle", "false", "true"},
                                             {"data.loss_on", "all", "answer"},
                                             {"data.max_length", "1000", "2048"}}) {
    const json now = with({std::string(c.key) + "=" + c.value});
    expect_user_error(ExitCode::config,
                      {"step-000002", std::string(c.key) + " was", c.before, c.value, "is",
                       "--allow-changes", "another output"},
                      [&] { check_fingerprint(checkpoint, now, false); });
    EXPECT_NO_THROW(check_fingerprint(checkpoint, now, true)) << c.key;
  }
}

TEST_F(Fingerprint, WhereAndWhenMayChange) {
  const fs::path checkpoint = saved(with({}));
  const std::string elsewhere = (folder_.path() / "elsewhere").string();
  EXPECT_NO_THROW(check_fingerprint(
      checkpoint,
      with({"train.log_every=2", "train.eval_every=2", "train.save_every=2", "train.keep=5",
            "train.recompute=all", "train.offload=all", "data.threads=2", "device=auto",
            "train.max_steps=9", "train.epochs=3", "output=" + elsewhere},
           9),
      false));
}

TEST_F(Fingerprint, FewerStepsThanAreDoneAreRefused) {
  const fs::path checkpoint = saved(with({}), 3);
  EXPECT_NO_THROW(check_fingerprint(checkpoint, with({"train.max_steps=3"}, 3), false));
  for (const bool allowed : {false, true}) {
    expect_user_error(ExitCode::config, {"3 steps are done", "after 2", "train.max_steps"}, [&] {
      check_fingerprint(checkpoint, with({"train.max_steps=2"}, 2), allowed);
    });
  }
}

// The same files elsewhere are the same; other files under the same name are not.
TEST_F(Fingerprint, FilesAreKnownByWhatTheyHold) {
  const Config original = load(folder_, fixture_config(folder_));
  const fs::path checkpoint = saved(of(original));
  const fs::path moved = folder_.path() / "moved";
  fs::copy(fixture(), moved, fs::copy_options::recursive);
  json c = fixture_config(folder_);
  c["model"]["path"] = (moved / "checkpoint").string();
  c["lora"]["init_from"] = (moved / "adapter").string();
  c["data"]["train"][0]["path"] = (moved / "dataset.jsonl").string();
  const Config config = load(folder_, c);
  EXPECT_NO_THROW(check_fingerprint(checkpoint, of(config), false));

  const fs::path again = saved(of(config));
  const auto expect_noticed = [&](const std::string& file, const std::string& key, ExitCode code,
                                  const std::function<void(std::string&)>& change) {
    const std::string good = folder_.read(file);
    std::string bad = good;
    change(bad);
    folder_.write(file, bad);
    expect_user_error(code, {"the files of " + key, "have changed", "--allow-changes"},
                      [&] { check_fingerprint(again, of(config), false); });
    folder_.write(file, good);
    EXPECT_NO_THROW(check_fingerprint(again, of(config), false));
  };
  const auto flip = [](std::string& bytes) { bytes[bytes.size() - 9] ^= 1; };
  expect_noticed("moved/checkpoint/model.safetensors", "model.path", ExitCode::model, flip);
  expect_noticed("moved/adapter/adapter_model.safetensors", "lora.init_from", ExitCode::model,
                 flip);
  expect_noticed("moved/dataset.jsonl", "data.train", ExitCode::data,
                 [](std::string& text) { text.replace(text.find("modality"), 8, "nodality"); });
}

TEST_F(Fingerprint, ADamagedStateIsAnErrorOfTheCheckpoint) {
  const json now = with({});
  json list = now;
  list["keys"]["train.seed"] = json::array({3407});
  json bare = now;
  bare["keys"]["train.seed"] = json::object();
  for (const json& run : {json(), json(5), json::object(), json{{"steps", 4}},
                          json{{"steps", "4"}, {"keys", json::object()}}, list, bare}) {
    const fs::path checkpoint = saved(run);
    expect_user_error(ExitCode::model, {"state.json"},
                      [&] { check_fingerprint(checkpoint, now, false); });
  }
}

}  // namespace
}  // namespace medvqa::train
