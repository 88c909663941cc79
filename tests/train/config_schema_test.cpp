#include "medvqa/train/config_schema.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "medvqa/train/config_table.h"
#include "tests/train/train_test_support.h"

namespace medvqa::train {
namespace {

fs::path shipped(const std::string& name) {
  return fs::path(MEDVQA_SOURCE_DIR) / "configs" / name;
}

// Where a key's property lies in the schema.
const json& property(const json& schema, const std::string& path) {
  const json* at = &schema;
  for (std::size_t begin = 0; begin <= path.size();) {
    const std::size_t end = std::min(path.find('.', begin), path.size());
    EXPECT_EQ(at->at("additionalProperties"), false) << path;
    at = &at->at("properties").at(path.substr(begin, end - begin));
    begin = end + 1;
  }
  return *at;
}

TEST(ConfigSchema, HasEveryKeyWithDefaultAndText) {
  const json schema = config_schema();
  EXPECT_EQ(schema.at("$schema"), "https://json-schema.org/draft/2020-12/schema");
  for (const ConfigKey& key : config_keys()) {
    const json& p = property(schema, key.path);
    EXPECT_EQ(p.at("description"), key.doc);
    EXPECT_EQ(p.contains("default"), *key.fallback != '\0') << key.path;
    if (p.contains("default")) {
      EXPECT_EQ(p.at("default"), json::parse(key.fallback)) << key.path;
    }
  }
  EXPECT_EQ(schema.at("required"), (json{"model", "data", "output"}));
  EXPECT_EQ(property(schema, "lora.r").at("maximum"), 4096);
  EXPECT_EQ(property(schema, "train.max_steps").at("type"), (json{"integer", "null"}));
  EXPECT_EQ(property(schema, "train.schedule").at("enum"), (json{"linear", "cosine", "constant"}));
}

TEST(ConfigSchema, TheShippedFilesAreWhatTheTableGives) {
  EXPECT_EQ(bytes_of_file(shipped("config.schema.json")), config_schema().dump(2) + "\n")
      << "medvqa train --print-schema > configs/config.schema.json";
  EXPECT_EQ(bytes_of_file(shipped("REFERENCE.md")), config_reference())
      << "medvqa train --print-reference > configs/REFERENCE.md";
}

TEST(ConfigSchema, HelpNamesEveryKey) {
  for (const ConfigKey& key : config_keys()) {
    EXPECT_NE(config_help().find(key.path), std::string::npos) << key.path;
    EXPECT_NE(config_reference().find("`" + std::string(key.path) + "`"), std::string::npos);
  }
}

}  // namespace
}  // namespace medvqa::train
