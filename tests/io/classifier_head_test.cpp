#include "medvqa/io/classifier_head.h"

#include "tests/io/io_test_support.h"

namespace medvqa::io {
namespace {

using Metadata = std::map<std::string, std::string>;

void write_head(const TempFolder& folder, const TensorSpec& spec, const Metadata& metadata) {
  const std::string data(spec.bytes(), '\0');
  write_safetensors(folder.path() / kHeadFile, {spec}, {bytes_of(data)}, metadata);
}

const TensorSpec kWeight{"head.weight", DType::f32, {2, 4}};

TEST(ClassifierHead, ReadsIdsAndLabels) {
  const TempFolder folder;
  EXPECT_FALSE(read_classifier_head(folder.path()).has_value());
  write_head(folder, kWeight, {{"token_ids", "[2360, 7566]"}, {"labels", R"(["No", "Yes"])"}});
  const auto head = read_classifier_head(folder.path());
  ASSERT_TRUE(head.has_value());
  EXPECT_EQ(head->token_ids, (std::vector<std::int64_t>{2360, 7566}));
  EXPECT_EQ(head->labels, (std::vector<std::string>{"No", "Yes"}));
  EXPECT_EQ(head->weight.shape, kWeight.shape);
}

TEST(ClassifierHead, WhatIsWrongIsNamed) {
  const auto fails = [](const TensorSpec& spec, const Metadata& metadata,
                        const std::vector<std::string>& parts) {
    const TempFolder folder;
    write_head(folder, spec, metadata);
    std::vector<std::string> all = parts;
    all.push_back(kHeadFile);
    expect_user_error(ExitCode::model, all, [&] { read_classifier_head(folder.path()); });
  };
  const Metadata good{{"token_ids", "[1, 2]"}, {"labels", R"(["a", "b"])"}};
  const auto with = [&](const char* key, const char* value) {
    Metadata m = good;
    m[key] = value;
    return m;
  };
  fails({"weight", DType::f32, {2, 4}}, good, {"head.weight", "missing"});
  fails({"head.weight", DType::bf16, {2, 4}}, good, {"bf16", "[classes, C]"});
  fails({"head.weight", DType::f32, {1, 4}}, good, {"[1, 4]"});
  fails(kWeight, {{"labels", R"(["a", "b"])"}}, {"token_ids", "2 rows"});
  fails(kWeight, with("token_ids", "[1]"), {"token_ids", "2 rows"});
  fails(kWeight, with("token_ids", "[1, 1]"), {"1 twice"});
  fails(kWeight, with("token_ids", "[1, -2]"), {"-2"});
  fails(kWeight, with("token_ids", "[1, "), {"token_ids"});
  fails(kWeight, with("labels", "[1, 2]"), {"labels", "strings"});
  fails(kWeight, with("labels", R"(["a"])"), {"labels", "2 rows"});
}

}  // namespace
}  // namespace medvqa::io
