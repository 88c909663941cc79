#include <cstdlib>

#include "tests/data/data_test_support.h"

namespace medvqa::data {
namespace {

namespace fs = std::filesystem;

std::string original_row(const std::string& qid, const std::string& phrase,
                         const std::string& question, const std::string& answer) {
  return R"({"qid": )" + qid + R"(, "phrase_type": ")" + phrase +
         R"(", "image_name": "s.jpg", "image_organ": "HEAD", "question": ")" + question +
         R"(", "answer": )" + answer + "}";
}

std::string original_rows() {
  const std::vector<std::string> rows = {original_row("\"0\"", "freeform", " Is it? ", "\"Yes\""),
                                         original_row("1", "para", "IS it?", "\"yes \""),
                                         original_row("2", "freeform", "How many?", "4"),
                                         original_row("3", "freeform", "In test?", "\"No\""),
                                         original_row("4", "test_freeform", "in TEST?", "\"no\""),
                                         original_row("5", "test_para", "a\\tb  c", "\"x\"")};
  std::string text = "[";
  for (const std::string& row : rows) text += (text.size() > 1 ? ",\n" : "") + row;
  return text + "]";
}

class VqaRad : public ::testing::Test {
 protected:
  VqaRad() { folder_.write("images/s.jpg", "x"); }
  Records read(const std::string& split) {
    return read_records({"vqa-rad", folder_.path(), split});
  }
  TempFolder folder_;
};

TEST_F(VqaRad, OriginalIsNormalised) {
  const fs::path file = folder_.write("any name.json", original_rows());
  folder_.write("other.json", "[{\"a\": 1}]");
  const Records train = read("train");
  EXPECT_EQ(ids_of(train.rows), (std::vector<std::string>{"0", "2"}));
  EXPECT_EQ(train.rows[0].question, "is it?");
  EXPECT_EQ(train.rows[0].answer, "yes");
  EXPECT_EQ(train.rows[0].columns.at("question"), "is it?");
  EXPECT_EQ(train.rows[0].columns.at("image_organ"), "HEAD");
  EXPECT_EQ(train.rows[0].image, folder_.path() / "images/s.jpg");
  EXPECT_EQ(train.rows[1].answer, "4");
  ASSERT_EQ(train.dropped.size(), 2u);
  for (const auto& [reason, count] : train.dropped) EXPECT_EQ(count, 1) << reason;
  const Records test = read("test");
  EXPECT_EQ(ids_of(test.rows), (std::vector<std::string>{"4", "5"}));
  EXPECT_EQ(test.rows[1].question, "a\tb  c");
  EXPECT_TRUE(test.dropped.empty());
  EXPECT_EQ(read("").rows.size(), 4u);
  // Published files beside it win, but not over the file itself.
  folder_.write("train.jsonl", R"({"image": "s.jpg", "question": "Q", "answer": "A"})");
  EXPECT_EQ(read("train").rows.at(0).question, "Q");
  EXPECT_EQ(read_records({"vqa-rad", file, "train"}).rows.size(), 2u);
  expect_data_error({"\"test\"", "one of: train"}, {"vqa-rad", folder_.path(), "test"});
}

TEST_F(VqaRad, MevfFilesAreSplits) {
  const std::string row = original_row("0", "freeform", "Q", "\"A\"");
  folder_.write("trainset.json", "[" + row + "," + original_row("1", "para", "R", "\"A\"") + "]");
  folder_.write("testset.json", "[" + row + "]");
  EXPECT_EQ(ids_of(read("train").rows), (std::vector<std::string>{"1"}));
  EXPECT_EQ(read("test").rows.at(0).question, "q");
}

TEST_F(VqaRad, BadFilesAreNamed) {
  expect_data_error({folder_.path().string(), "no VQA-RAD files"}, {"vqa-rad", folder_.path(), ""});
  const fs::path file = folder_.write("x.json", original_rows());
  expect_data_error({"\"val\"", "test, train"}, {"vqa-rad", file, "val"});
  folder_.write("x.json", R"([{"image_name": "s.jpg", "question": "q", "answer": "a"}])");
  expect_data_error({"x.json, row 1", "\"phrase_type\""}, {"vqa-rad", file, ""});
  folder_.write("train.jsonl", R"({"question": "q", "answer": "a"})");
  expect_data_error({"train.jsonl, row 1", "\"image\""}, {"vqa-rad", folder_.path(), "train"});
  folder_.write("train.jsonl", R"({"image": "t.jpg", "question": "q", "answer": "a"})");
  expect_data_error({"t.jpg", "images"}, {"vqa-rad", folder_.path(), "train"});
}

TEST(VqaRadData, OriginalGivesThePublishedRows) {
  const char* data = std::getenv("MEDVQA_DATA");
  if (data == nullptr) GTEST_SKIP() << "MEDVQA_DATA is not set: VQA-RAD is not checked";
  const fs::path folder = fs::path(data) / "vqa-rad";
  const Records expected = read_records({"vqa-rad", folder, "train"});
  const Records train = read_records({"vqa-rad", folder / "VQA_RAD Dataset Public.json", "train"});
  EXPECT_EQ(expected.rows.size(), 1793u);
  ASSERT_EQ(train.rows.size(), 1793u);
  std::int64_t dropped = 0;
  for (const auto& [reason, count] : train.dropped) dropped += count;
  EXPECT_EQ(dropped, 4);
  const Records test = read_records({"vqa-rad", folder / "VQA_RAD Dataset Public.json", "test"});
  const Records expected_test = read_records({"vqa-rad", folder, "test"});
  EXPECT_EQ(expected_test.rows.size(), 451u);
  ASSERT_EQ(test.rows.size(), 451u);
  const auto same = [](const Records& a, const Records& b) {
    for (std::size_t i = 0; i < a.rows.size(); ++i) {
      EXPECT_EQ(a.rows[i].image, b.rows[i].image) << i;
      EXPECT_EQ(a.rows[i].image_name, b.rows[i].image_name) << i;
      EXPECT_EQ(a.rows[i].question, b.rows[i].question) << i;
      EXPECT_EQ(a.rows[i].answer, b.rows[i].answer) << i;
    }
  };
  same(train, expected);
  same(test, expected_test);
  EXPECT_EQ(read_records({"vqa-rad", folder, ""}).rows.size(), 2244u);
}

}  // namespace
}  // namespace medvqa::data
