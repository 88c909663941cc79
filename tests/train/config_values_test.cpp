// Which values each kind of key takes and which it refuses.
#include <gtest/gtest.h>

#include <cmath>

#include "medvqa/train/config_table.h"
#include "tests/train/train_test_support.h"

namespace medvqa::train {
namespace {

// Values of the wrong type for a key of that kind.
std::vector<json> wrong_types(KeyKind kind) {
  switch (kind) {
    case KeyKind::boolean:
      return {1, 0, "true", json::array(), json::object()};
    case KeyKind::integer:
      return {"1", true, 2.5, json::array({1}), json::object()};
    case KeyKind::number:
      return {"1", false, json::array({1}), json::object()};
    case KeyKind::text:
    case KeyKind::path:
      return {1, true, "", json::array({"a"}), json::object()};
    case KeyKind::choice:
      return {1, true, "no such choice", "", json::array()};
    case KeyKind::sources:
      return {"a",
              1,
              json::array(),
              json::array({"a"}),
              json::parse(R"([{"format": "json"}])"),
              json::parse(R"([{"path": "x"}])"),
              json::parse(R"([{"format": 1, "path": "x"}])"),
              json::parse(R"([{"format": "json", "path": "x", "split": null}])"),
              json::object()};
    case KeyKind::validation:
      return {"a",
              0.1,
              json::array(),
              json::object(),
              json::parse(R"({"fraction": "0.1"})"),
              json::parse(R"({"fraction": -0.1})"),
              json::parse(R"({"fraction": 1})"),
              json::parse(R"({"fraction": 0.1, "by": "patient"})"),
              json::parse(R"({"fraction": 0.1, "to": "image"})"),
              json::parse(R"([{"path": 1}])")};
    case KeyKind::texts:
      return {"a", 1, json::array(), json::object(), json::parse(R"({"0": 1})")};
  }
  return {};
}

void expect_refused(const ConfigKey& key, const json& value) {
  expect_user_error(ExitCode::config, {"where", key.path, value.dump(), "expected"},
                    [&] { check_value(key, value, "where"); });
}

TEST(ConfigValues, WrongTypesAreRefusedForEveryKey) {
  for (const ConfigKey& key : config_keys()) {
    for (const json& value : wrong_types(key.kind)) expect_refused(key, value);
    if (key.nullable) {
      EXPECT_NO_THROW(check_value(key, nullptr, "where")) << key.path;
    } else {
      expect_refused(key, nullptr);
    }
  }
}

TEST(ConfigValues, RangesIncludeTheirEnds) {
  for (const ConfigKey& key : config_keys()) {
    const bool integer = key.kind == KeyKind::integer;
    if (!integer && key.kind != KeyKind::number) continue;
    const auto as_value = [&](double v) { return integer ? json(std::llround(v)) : json(v); };
    EXPECT_NO_THROW(check_value(key, as_value(key.lowest), "where")) << key.path;
    EXPECT_NO_THROW(check_value(key, as_value(key.highest), "where")) << key.path;
    expect_refused(key, as_value(key.lowest - 1));
    expect_refused(key, as_value(key.highest + 1));
  }
}

TEST(ConfigValues, ChoicesAreTheDocumentedOnes) {
  const std::map<std::string, std::vector<std::string>> documented{
      {"task", {"vqa", "text", "classification"}},
      {"model.quantization", {"auto", "nf4", "none"}},
      {"model.compute", {"auto", "f32", "bf16", "f16"}},
      {"model.vision_features", {"block_input", "block_output"}},
      {"data.too_long", {"error", "drop"}},
      {"data.loss_on", {"answer", "all"}},
      {"train.schedule", {"linear", "cosine", "constant"}},
      {"train.optimizer", {"adamw8bit", "adamw"}},
      {"train.recompute", {"auto", "all", "attention_saved", "none"}},
      {"train.offload", {"auto", "none", "all"}}};
  std::size_t choices = 0;
  for (const ConfigKey& key : config_keys()) {
    if (key.kind != KeyKind::choice) continue;
    ++choices;
    ASSERT_TRUE(documented.contains(key.path)) << key.path;
    for (const std::string& choice : documented.at(key.path)) {
      EXPECT_NO_THROW(check_value(key, choice, "where")) << key.path << " " << choice;
    }
    EXPECT_EQ(key.choices.size(), documented.at(key.path).size()) << key.path;
  }
  EXPECT_EQ(choices, documented.size());
}

TEST(ConfigValues, ValidationTakesAFractionAListOrNull) {
  const ConfigKey& key = *find_key("data.validation");
  for (const char* text : {R"({"fraction": 0})", R"({"fraction": 0.999, "by": "image"})",
                           R"([{"format": "json", "path": "v"}])", "null"}) {
    EXPECT_NO_THROW(check_value(key, json::parse(text), "where")) << text;
  }
}

TEST(ConfigValues, ASourceHasNoOtherKeys) {
  const TempFolder folder;
  json config = fixture_config(folder);
  config["data"]["train"][0]["spilt"] = "train";
  expect_user_error(ExitCode::config, {"spilt", "split"}, [&] { load(folder, config); });
}

// JSON's integers may be too large for any key, its numbers not finite.
TEST(ConfigValues, HugeNumbersAreRefused) {
  const TempFolder folder;
  for (const char* value : {"18446744073709551615", "-9223372036854775808", "1e400", "1e30"}) {
    expect_user_error(ExitCode::config, {"train.seed"}, [&] {
      load(folder, fixture_config(folder), {std::string("train.seed=") + value});
    });
  }
  expect_user_error(ExitCode::config, {"train.learning_rate"},
                    [&] { load(folder, fixture_config(folder), {"train.learning_rate=NaN"}); });
}

}  // namespace
}  // namespace medvqa::train
