#include "medvqa/train/config.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "medvqa/train/config_table.h"
#include "tests/train/train_test_support.h"

namespace medvqa::train {
namespace {

using Environment = std::map<std::string, std::string>;

// The least a configuration needs; `extra` is put into it.
std::string minimal(const std::string& extra = "") {
  return R"({"model": {"path": "/models/tiny"},
             "data": {"train": [{"format": "jsonl", "path": "d.jsonl"}]},
             "output": "runs/a")" +
         extra + "}";
}

class ConfigFile : public ::testing::Test {
 protected:
  Config read(const std::string& text, const std::vector<std::string>& overrides = {},
              const Environment& environment = {}) {
    return load_config(folder_.write("c.json", text), overrides, environment);
  }
  void expect_config_error(const std::vector<std::string>& parts, const std::string& text,
                           const std::vector<std::string>& overrides = {},
                           const Environment& environment = {}) {
    expect_user_error(ExitCode::config, parts, [&] { read(text, overrides, environment); });
  }
  TempFolder folder_;
};

// The defaults of the project's configuration page.
json documented_defaults() {
  return json::parse(R"({
    "task": "vqa", "device": "auto",
    "model": {"quantization": "auto", "double_quant": true, "compute": "auto",
              "vision_features": "block_input"},
    "lora": {"r": 16, "alpha": 16, "dropout": 0.0, "rslora": false, "vision": true,
             "language": true, "attention": true, "mlp": true, "targets": null,
             "init_from": null},
    "data": {"validation": {"fraction": 0.1, "by": "image"}, "prompt": "{question}",
             "system": null, "label": "label", "max_length": 2048, "too_long": "error",
             "loss_on": "answer", "image_first": true,
             "image": {"min_pixels": null, "max_pixels": null}, "packing": true,
             "shuffle": true, "group_by_length": false, "threads": 1},
    "train": {"batch_size": 2, "gradient_accumulation": 4, "epochs": 1, "max_steps": null,
              "learning_rate": 2e-4, "schedule": "linear", "warmup_steps": 5,
              "weight_decay": 0.01, "max_grad_norm": 1.0, "optimizer": "adamw8bit",
              "recompute": "auto", "offload": "auto", "seed": 3407, "log_every": 1,
              "eval_every": null, "save_every": null, "keep": 2},
    "classification": {"classes": {"0": " No", "1": " Yes"}}})");
}

TEST_F(ConfigFile, DefaultsAreTheDocumentedOnes) {
  json expected = documented_defaults();
  expected["model"]["path"] = "/models/tiny";
  expected["data"]["train"] = json::parse(R"([{"format": "jsonl"}])");
  expected["data"]["train"][0]["path"] = (folder_.path() / "d.jsonl").string();
  expected["output"] = (folder_.path() / "runs/a").string();
  const Config c = read(minimal());
  const json resolved = c.resolved;
  EXPECT_EQ(resolved, expected) << json::diff(resolved, expected).dump(1);
  EXPECT_EQ(c.train.seed, 3407u);
  EXPECT_EQ(c.train.learning_rate, 2e-4);
  EXPECT_TRUE(c.train.eight_bit);
  EXPECT_FALSE(c.train.recompute.has_value());
  EXPECT_FALSE(c.train.max_steps.has_value());
  EXPECT_EQ(c.data.validation_fraction, 0.1);
  EXPECT_EQ(c.data.prompt.prompt, "{question}");
  EXPECT_FALSE(c.data.drop_too_long);
  EXPECT_EQ(c.output, folder_.path() / "runs/a");
}

TEST_F(ConfigFile, EveryValueReachesTheStruct) {
  const Config c =
      read(minimal(R"(, "task": "text", "device": "cpu",
    "lora": {"r": 8, "alpha": 32, "dropout": 0.25, "rslora": true, "vision": false,
             "language": false, "attention": false, "mlp": false, "targets": "a.*",
             "init_from": "start"},
    "train": {"batch_size": 3, "gradient_accumulation": 5, "epochs": 7, "max_steps": 11,
              "learning_rate": 0.5, "schedule": "cosine", "warmup_steps": 0, "weight_decay": 0,
              "max_grad_norm": 0, "optimizer": "adamw", "recompute": "attention_saved",
              "offload": "all", "seed": 4294967295, "log_every": 2, "eval_every": 4,
              "save_every": 6, "keep": 9})"),
           {"data.validation=null", "data.loss_on=all", "data.too_long=drop",
            "data.image.min_pixels=784", "data.image.max_pixels=3920", "data.system=Be brief",
            "data.image_first=false", "data.packing=false", "data.shuffle=false", "data.threads=3",
            "data.max_length=99", "data.prompt=Q: {question}", "model.compute=f16",
            "model.double_quant=false", "model.quantization=nf4"});
  EXPECT_EQ(c.task, "text");
  EXPECT_EQ(c.device, "cpu");
  EXPECT_EQ(c.model.quantization, "nf4");
  EXPECT_FALSE(c.model.double_quant);
  EXPECT_EQ(c.model.compute, "f16");
  EXPECT_EQ(c.lora.r, 8);
  EXPECT_DOUBLE_EQ(c.lora.scaling(), 32 / std::sqrt(8.0));
  EXPECT_EQ(c.lora.dropout, 0.25);
  EXPECT_FALSE(c.lora.vision || c.lora.language || c.lora.attention || c.lora.mlp);
  EXPECT_EQ(c.lora.targets, "a.*");
  EXPECT_EQ(c.lora.init_from, (folder_.path() / "start").string());
  EXPECT_FALSE(c.data.validation_fraction.has_value());
  EXPECT_TRUE(c.data.validation.empty());
  EXPECT_EQ(c.data.prompt.loss_on, LossOn::all);
  EXPECT_EQ(c.data.prompt.system, "Be brief");
  EXPECT_EQ(c.data.prompt.prompt, "Q: {question}");
  EXPECT_FALSE(c.data.prompt.image_first || c.data.packing || c.data.shuffle);
  EXPECT_TRUE(c.data.drop_too_long);
  EXPECT_EQ(c.data.min_pixels, 784);
  EXPECT_EQ(c.data.max_pixels, 3920);
  EXPECT_EQ(c.data.threads, 3);
  EXPECT_EQ(c.data.max_length, 99);
  const TrainConfig& t = c.train;
  EXPECT_EQ(t.batch_size, 3);
  EXPECT_EQ(t.gradient_accumulation, 5);
  EXPECT_EQ(t.epochs, 7);
  EXPECT_EQ(t.max_steps, 11);
  EXPECT_EQ(t.learning_rate, 0.5);
  EXPECT_EQ(t.schedule, Schedule::cosine);
  EXPECT_EQ(t.warmup_steps, 0);
  EXPECT_EQ(t.weight_decay, 0);
  EXPECT_EQ(t.max_grad_norm, 0);
  EXPECT_FALSE(t.eight_bit);
  EXPECT_EQ(t.recompute, autograd::Recompute::attention_saved);
  EXPECT_EQ(t.offload, Offload::all);
  EXPECT_EQ(t.seed, 4294967295u);
  EXPECT_EQ(t.log_every, 2);
  EXPECT_EQ(t.eval_every, 4);
  EXPECT_EQ(t.save_every, 6);
  EXPECT_EQ(t.keep, 9);
}

TEST_F(ConfigFile, FileThenEnvironmentThenCommandLine) {
  const std::string file = minimal(R"(, "train": {"seed": 1, "epochs": 2, "batch_size": 3})");
  const Environment environment{{"MEDVQA__TRAIN__SEED", "10"},
                                {"MEDVQA__TRAIN__EPOCHS", "20"},
                                {"MEDVQA__DATA__IMAGE__MAX_PIXELS", "1000"},
                                {"MEDVQA_DATA", "not ours"},
                                {"HOME", "/root"}};
  const Config c = read(file, {"train.seed=100", "train.seed=101"}, environment);
  EXPECT_EQ(c.train.seed, 101u);       // the last --set
  EXPECT_EQ(c.train.epochs, 20);       // environment over file
  EXPECT_EQ(c.train.batch_size, 3);    // file over default
  EXPECT_EQ(c.train.log_every, 1);     // default
  EXPECT_EQ(c.data.max_pixels, 1000);  // two underscores part sections, one stays
  EXPECT_EQ(c.resolved.at("train").at("seed"), 101);
}

TEST_F(ConfigFile, StringsTakeEnvironmentVariables) {
  const std::string text = R"({"model": {"path": "/m"}, "output": "${OUT:-/runs}/a",
    "lora": {"init_from": "${WHERE}/adapter${SUFFIX:-}"},
    "data": {"prompt": "${A:-x}${B} {question} $HOME ${unclosed",
             "train": [{"format": "jsonl", "path": "${ROOT:-/data}/d.jsonl"}]}})";
  const Config c = read(text, {}, {{"WHERE", "/w"}, {"B", "b"}, {"OUT", ""}});
  EXPECT_EQ(c.lora.init_from, "/w/adapter");
  EXPECT_EQ(c.data.prompt.prompt, "xb {question} $HOME ${unclosed");
  EXPECT_EQ(c.data.train.at(0).path, "/data/d.jsonl");
  EXPECT_EQ(c.output, "/runs/a");  // as a shell's :-, an empty variable takes the default
  EXPECT_EQ(read(text, {}, {{"WHERE", "/w"}, {"B", "b"}, {"ROOT", "/r"}}).data.train.at(0).path,
            "/r/d.jsonl");
  EXPECT_EQ(read(minimal(), {"output=${X}/b"}, {{"X", "/x"}}).output, "/x/b");
  expect_config_error({"c.json", "WHERE", "not set", ":-"}, text, {}, {{"B", "b"}});
}

TEST_F(ConfigFile, AnUnknownKeyNamesTheNearest) {
  expect_config_error({"c.json", "train.sede", "did you mean train.seed"},
                      minimal(R"(, "train": {"sede": 1})"));
  expect_config_error({"c.json", "trian", "did you mean"}, minimal(R"(, "trian": 1)"));
  expect_config_error({"data.image.maxpixels", "data.image.max_pixels"}, minimal(),
                      {"data.image.maxpixels=5"});
  expect_config_error({"MEDVQA__TRAIN__LEARNING_RAT", "train.learning_rate"}, minimal(), {},
                      {{"MEDVQA__TRAIN__LEARNING_RAT", "1"}});
  expect_config_error({"train.seed"}, minimal(R"(, "train": {"seed": {"x": 1}})"), {});
}

TEST_F(ConfigFile, ASectionIsAnObject) {
  expect_config_error({"c.json", "train"}, minimal(R"(, "train": 3)"));
  expect_config_error({"c.json", "expected an object"}, "[1, 2]");
}

TEST_F(ConfigFile, WrongSyntaxNamesLineAndColumn) {
  expect_config_error({"c.json", "line 2"}, "{\"output\": \"a\",\n oops}");
  expect_config_error({"c.json", "seed", "twice"}, minimal(R"(, "train": {"seed": 1, "seed": 2})"));
  expect_user_error(ExitCode::config, {"absent.json"},
                    [&] { load_config(folder_.path() / "absent.json", {}, {}); });
}

TEST_F(ConfigFile, CommentsAndSchemaAreAccepted) {
  const Config c = read("// first\n" + minimal(R"(, "$schema": "x.json", // why
    "train": {"seed": /* here */ 5})"));
  EXPECT_EQ(c.train.seed, 5u);
  EXPECT_FALSE(c.resolved.contains("$schema"));
}

TEST_F(ConfigFile, RequiredKeysAreNamed) {
  expect_config_error({"c.json", "model.path", "required"}, "{}");
  expect_config_error({"data.train"}, R"({"model": {"path": "m/m"}, "output": "o"})");
  expect_config_error(
      {"output"},
      R"({"model": {"path": "/m"}, "data": {"train": [{"format": "json", "path": "d"}]}})");
  // --set supplies what the file lacks.
  EXPECT_EQ(read(R"({"model": {"path": "/m"}, "output": "/o"})",
                 {R"(data.train=[{"format": "json", "path": "/d"}])"})
                .data.train.at(0)
                .format,
            "json");
}

TEST_F(ConfigFile, AMalformedOverrideIsAUsageError) {
  for (const char* word : {"train.seed", "=3", ""}) {
    expect_user_error(ExitCode::usage, {"--set", "KEY=JSON"}, [&] { read(minimal(), {word}); });
  }
  EXPECT_EQ(read(minimal(), {"data.prompt=a=b"}).data.prompt.prompt, "a=b");
}

TEST_F(ConfigFile, PathsStandAgainstWhereTheyWereWritten) {
  const std::string text = R"({"model": {"path": "../m"}, "output": "../runs/./x",
    "data": {"train": [{"format": "jsonl", "path": "d.jsonl"}],
             "validation": [{"format": "json", "path": "sub/v.json", "split": "val"}]}})";
  const fs::path file = folder_.write("sub/c.json", text);
  const Config c = load_config(file, {"lora.init_from=here"}, {});
  EXPECT_EQ(c.model.path, (folder_.path() / "m").string());
  EXPECT_EQ(c.output, folder_.path() / "runs/x");
  EXPECT_EQ(c.data.train.at(0).path, folder_.path() / "sub/d.jsonl");
  EXPECT_EQ(c.data.validation.at(0).path, folder_.path() / "sub/sub/v.json");
  EXPECT_EQ(c.data.validation.at(0).split, "val");
  EXPECT_FALSE(c.data.validation_fraction.has_value());
  EXPECT_EQ(c.lora.init_from, (fs::current_path() / "here").string());
}

TEST_F(ConfigFile, AHubIdStaysUnlessThereIsSuchAFolder) {
  const auto path = [&](const char* text) {
    return read(std::string(R"({"model": {"path": ")") + text +
                R"("}, "output": "/o", "data": {"train": [{"format": "j", "path": "/d"}]}})")
        .model.path;
  };
  EXPECT_EQ(path("Qwen/Qwen2-VL-2B-Instruct"), "Qwen/Qwen2-VL-2B-Instruct");
  fs::create_directories(folder_.path() / "Qwen/Local");
  EXPECT_EQ(path("Qwen/Local"), (folder_.path() / "Qwen/Local").string());
  EXPECT_EQ(path("./Qwen/Other"), (folder_.path() / "Qwen/Other").string());
  EXPECT_EQ(path("a/b/c"), (folder_.path() / "a/b/c").string());
  EXPECT_EQ(path("alone"), (folder_.path() / "alone").string());
}

// Wherever they are written, and only for the task that has them.
TEST_F(ConfigFile, ClassesStayInTheOrderWritten) {
  using Labels = std::vector<std::string>;
  const std::string text =
      minimal(R"(, "task": "classification", "classification": {"classes": {"b": "x", "a": "y"}})");
  const Config c = read(text, {"data.label=finding"});
  EXPECT_EQ(c.data.classes->labels, (Labels{"b", "a"}));
  EXPECT_EQ(c.data.classes->texts, (Labels{"x", "y"}));
  EXPECT_EQ(c.data.classes->column, "finding");
  EXPECT_TRUE(c.data.train.front().text_only);
  const char* other = R"({"9": "p", "10": "q"})";
  EXPECT_EQ(read(text, {std::string("classification.classes=") + other}).data.classes->labels,
            (Labels{"9", "10"}));
  EXPECT_EQ(read(text, {}, {{"MEDVQA__CLASSIFICATION__CLASSES", other}}).data.classes->labels,
            (Labels{"9", "10"}));
  EXPECT_FALSE(read(minimal()).data.classes.has_value());
  EXPECT_FALSE(read(minimal()).data.train.front().text_only);
  expect_config_error({"classification.classes", "at least two"}, text,
                      {R"(classification.classes={"b": "x"})"});
}

TEST_F(ConfigFile, TheResolvedConfigurationGivesItselfBack) {
  const Config c = read(minimal(R"(, "train": {"seed": 9}, "classification": {"classes": {
    "z": "x", "a": "y"}})"),
                        {"data.validation=null"});
  const Config again = load_config(folder_.write("other/r.json", c.resolved.dump()), {}, {});
  EXPECT_EQ(json(again.resolved), json(c.resolved));
  EXPECT_EQ(again.resolved.at("classification").dump(), R"({"classes":{"z":"x","a":"y"}})");
}

TEST(ConfigTable, EditDistanceFindsTheKey) {
  EXPECT_EQ(nearest_key("train.lr_schedule"), "train.schedule");
  EXPECT_EQ(nearest_key("outputs"), "output");
  EXPECT_EQ(find_key("train"), nullptr);
  ASSERT_NE(find_key("train.seed"), nullptr);
  EXPECT_EQ(find_key("train.seed")->kind, KeyKind::integer);
}

TEST(ConfigTable, EveryKeyHasADocLineAndADefaultItAccepts) {
  std::set<std::string> names;
  for (const ConfigKey& key : config_keys()) {
    EXPECT_TRUE(names.insert(key.path).second) << key.path << " stands twice";
    EXPECT_GT(std::string(key.doc).size(), 3u) << key.path;
    EXPECT_EQ(key.kind == KeyKind::choice, !key.choices.empty()) << key.path;
    if (*key.fallback != '\0') {
      EXPECT_NO_THROW(check_value(key, json::parse(key.fallback), "default")) << key.path;
    }
  }
}

}  // namespace
}  // namespace medvqa::train
