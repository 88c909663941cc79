#include "medvqa/data/record.h"

#include "tests/data/data_test_support.h"

namespace medvqa::data {
namespace {

constexpr const char* kTwoRows =
    "{\"image\": \"a.png\", \"question\": \"Q one\", \"answer\": \"A\", \"age\": 7, \"ok\": true}\n"
    "\n"
    "{\"image\": \"b.png\", \"question\": \"Q two\", \"answer\": 2, \"none\": null}\r\n";

class JsonlRecords : public ::testing::Test {
 protected:
  Source write(const std::string& text) {
    folder_.write("images/a.png", "x");
    folder_.write("b.png", "x");
    return {"jsonl", folder_.write("rows.jsonl", text), ""};
  }
  TempFolder folder_;
};

TEST_F(JsonlRecords, KeepTextColumnsAndOrder) {
  const Records records = read_records(write(kTwoRows));
  ASSERT_EQ(records.rows.size(), 2u);
  const Record& first = records.rows[0];
  EXPECT_EQ(first.id, "rows:1");
  EXPECT_EQ(first.image, folder_.path() / "images/a.png");
  EXPECT_EQ(first.image_name, "a.png");
  EXPECT_EQ(first.question, "Q one");
  EXPECT_EQ(first.columns, (std::map<std::string, std::string>{{"age", "7"},
                                                               {"answer", "A"},
                                                               {"image", "a.png"},
                                                               {"ok", "true"},
                                                               {"question", "Q one"}}));
  EXPECT_EQ(records.rows[1].id, "rows:3");
  EXPECT_EQ(records.rows[1].image, folder_.path() / "b.png");
  EXPECT_EQ(records.rows[1].answer, "2");
  EXPECT_TRUE(records.dropped.empty());
}

TEST_F(JsonlRecords, NeedNoImage) {
  const Records records = read_records(write(R"({"question": "q", "answer": "a"})"));
  EXPECT_TRUE(records.rows.at(0).image.empty());
  EXPECT_TRUE(records.rows.at(0).image_name.empty());
}

TEST_F(JsonlRecords, HaveUniqueIds) {
  const Records records = read_records(write(R"({"id": "x", "question": "q", "answer": "a"}
{"id": "x", "question": "q", "answer": "a"}
{"qid": 5, "question": "q", "answer": "a"}
{"id": null, "qid": 5, "question": "q", "answer": "a"})"));
  EXPECT_EQ(ids_of(records.rows), (std::vector<std::string>{"x", "x@rows:2", "5", "5@rows:4"}));
}

TEST_F(JsonlRecords, AreChosenBySplitColumn) {
  Source source = write(R"({"split": "train", "question": "q", "answer": "a"}
{"split": "Valid", "question": "q", "answer": "a"})");
  source.split = "validation";
  EXPECT_EQ(ids_of(read_records(source).rows), (std::vector<std::string>{"rows:2"}));
  source.split = "";
  EXPECT_EQ(read_records(source).rows.size(), 2u);
  source.split = "test";
  expect_data_error({"rows.jsonl", "\"test\"", "train, val"}, source);
}

TEST_F(JsonlRecords, MissingImagesOfOtherSplitsDoNotMatter) {
  Source source = write(R"({"image": "b.png", "split": "train", "question": "q", "answer": "a"}
{"image": "gone.png", "split": "test", "question": "q", "answer": "a"})");
  source.split = "train";
  EXPECT_EQ(read_records(source).rows.size(), 1u);
  source.split = "test";
  expect_data_error({"gone.png", "1 of 1"}, source);
}

TEST_F(JsonlRecords, ComeFromTheFolderToo) {
  folder_.write("train.jsonl", R"({"question": "t", "answer": "a"})");
  folder_.write("test.jsonl", R"({"question": "u", "answer": "a"})");
  EXPECT_EQ(read_records({"jsonl", folder_.path(), "test"}).rows.at(0).question, "u");
  EXPECT_EQ(read_records({"jsonl", folder_.path(), ""}).rows.size(), 2u);
  expect_data_error({"test.jsonl, train.jsonl", "val.jsonl"}, {"jsonl", folder_.path(), "val"});
  folder_.write("dataset.jsonl", R"({"split": "val", "question": "d", "answer": "a"})");
  EXPECT_EQ(read_records({"jsonl", folder_.path(), "val"}).rows.at(0).question, "d");
  EXPECT_EQ(read_records({"jsonl", folder_.path(), ""}).rows.at(0).question, "d");
}

TEST_F(JsonlRecords, BadRowsAreNamed) {
  const auto fails = [&](const std::string& row, std::vector<std::string> parts) {
    parts.push_back("rows.jsonl, row 2");
    expect_data_error(parts, write(R"({"question": "q", "answer": "a"})"
                                   "\n" +
                                   row + "\n"));
  };
  fails("[1]", {"a list", "object"});
  fails("7", {"found 7"});
  fails(R"({"question": "q")", {"not valid JSON"});
  fails("{\"question\": \"\xff\", \"answer\": \"a\"}", {"not valid JSON"});
  fails(R"({"question": "q", "question": "r", "answer": "a"})", {"\"question\"", "twice"});
  fails(R"({"question": "q"})", {"\"answer\"", "only \"question\""});
  fails(R"({"answer": "a"})", {"\"question\""});
  fails(R"({"question": "", "answer": "a"})", {"\"question\"", "empty"});
  fails(R"({"question": "q", "answer": " \n"})", {"\"answer\"", "empty"});
  fails(R"({"question": ["q"], "answer": "a"})", {"\"question\"", "a list"});
  fails(R"({"question": "q", "answer": null})", {"\"answer\"", "null"});
  fails(R"({"question": "q", "answer": true})", {"\"answer\"", "true"});
  fails(R"({"question": "q", "answer": "a", "image": 3})", {"\"image\"", "found 3"});
  fails(R"({"question": "q", "answer": "a", "image": ""})", {"\"image\"", "empty"});
  fails(R"({"question": "q", "answer": "a", "image": "a.png\u0000"})", {"\"image\"", "zero"});
  fails(R"({"question": "q", "answer": "a", "id": {}})", {"\"id\"", "an object"});
  fails(R"({"question": "q", "answer": "a", "image": "no.png"})", {"no.png", "1 of 1 images"});
  fails(R"({"question": "q", "answer": "a", "image": "images"})", {"\"images\"", "missing"});
}

TEST_F(JsonlRecords, BadFilesAreNamed) {
  expect_data_error({"rows.jsonl", "empty"}, write(""));
  expect_data_error({"rows.jsonl", "empty"}, write("\n \n"));
  expect_data_error({"gone.jsonl", "nothing"}, {"jsonl", folder_.path() / "gone.jsonl", ""});
  const TempFolder bare;
  expect_data_error({bare.path().string(), "no such files", "dataset.jsonl"},
                    {"jsonl", bare.path(), ""});
}

TEST_F(JsonlRecords, AMissingSplitInOneRowIsNamed) {
  Source source = write(R"({"split": "train", "question": "q", "answer": "a"}
{"question": "q", "answer": "a"})");
  source.split = "train";
  expect_data_error({"row 2", "\"split\"", "one of train"}, source);
}

TEST_F(JsonlRecords, MissingImagesAreCounted) {
  std::string text;
  for (int i = 0; i < 5; ++i) {
    text += R"({"question": "q", "answer": "a", "image": ")" + std::to_string(i) + ".png\"}\n";
  }
  expect_data_error({"5 of 5", "0.png", "row 3", "..."}, write(text + text));
}

TEST(Records, OfUnknownFormatNameTheKnownOnes) {
  const TempFolder folder;
  expect_data_error({"\"parquet\"", "vqa-rad, jsonl, json, csv"}, {"parquet", folder.path(), ""});
  for (const char* name : {"medpix", "chestxray14", "mimic-cxr", "openi", "slake", "shards"}) {
    expect_data_error({name, "not built in yet"}, {name, folder.path(), ""});
  }
}

TEST(Records, OfSeveralSourcesFollowEachOther) {
  const TempFolder folder;
  const auto one = folder.write("one.jsonl", R"({"question": "1", "answer": "a"})");
  const auto two = folder.write("two.jsonl", R"({"question": "2", "answer": "a"})");
  const std::vector<Source> sources = {{"jsonl", two, ""}, {"jsonl", one, ""}};
  EXPECT_EQ(ids_of(read_records(sources).rows), (std::vector<std::string>{"two:1", "one:1"}));
}

TEST(JsonRecords, ReadListsAndLines) {
  const TempFolder folder;
  folder.write("train/x.png", "x");
  folder.write("images/valid/y.png", "x");
  const std::string one = R"({"image": "train/x.png", "label": ["A", "B "], "report": "r",
    "question": "q", "answer": "a", "meta": {"age": 60, "more": [1]}})";
  const std::string two =
      R"({"image": "valid/y.png", "label": " A|| C", "question": "q", "answer": "b"})";
  folder.write("dataset.json", "\n [" + one + ",\n" + two + "]");
  const Records records = read_records({"json", folder.path(), ""});
  ASSERT_EQ(records.rows.size(), 2u);
  EXPECT_EQ(records.rows[0].id, "dataset:1");
  EXPECT_EQ(records.rows[0].columns.at("label"), "A|B");
  EXPECT_EQ(records.rows[0].columns.at("report"), "r");
  EXPECT_EQ(records.rows[0].columns.at("meta.age"), "60");
  EXPECT_FALSE(records.rows[0].columns.contains("meta.more"));
  EXPECT_EQ(records.rows[1].columns.at("label"), "A|C");
  EXPECT_EQ(ids_of(read_records({"json", folder.path(), "val"}).rows),
            (std::vector<std::string>{"dataset:2"}));
  EXPECT_EQ(ids_of(read_records({"json", folder.path(), "train"}).rows),
            (std::vector<std::string>{"dataset:1"}));
  expect_data_error({"\"test\"", "train, val"}, {"json", folder.path(), "test"});
  const auto lines = folder.write("lines.json", two + "\n" + two);
  EXPECT_EQ(read_records({"json", lines, ""}).rows.size(), 2u);
}

TEST(JsonRecords, BadFilesAreNamed) {
  const TempFolder folder;
  expect_data_error({folder.path().string(), "dataset.json"}, {"json", folder.path(), ""});
  const auto fails = [&](const std::string& text, std::vector<std::string> parts) {
    parts.push_back("dataset.json");
    expect_data_error(parts, {"json", folder.write("dataset.json", text), ""});
  };
  fails("[]", {"no rows"});
  fails("", {"no rows"});
  fails("[{\"question\": 1,]", {"line 1", "not valid JSON"});
  fails("[3]", {"row 1", "found 3"});
  fails(R"([{"label": "A", "report": "r"}])", {"row 1", "\"question\"", "\"label\", \"report\""});
  fails(R"([{"question": "q", "answer": "a", "label": {}}])", {"\"label\"", "an object"});
  fails(R"([{"question": "q", "answer": "a", "label": [[]]}])", {"\"label\"", "in a list"});
}

TEST(HoldOutImages, IsADrawOfSortedNames) {
  std::vector<Record> records;
  for (int i = 19; i >= 0; --i) {
    const std::string image = "i" + std::to_string(i / 2);
    records.push_back(make_record("r" + std::to_string(i), image));
  }
  // torch.randperm(10) with seed 3407 begins 9 1 5.
  const Split split = hold_out_images(records, 0.25, 3407);
  EXPECT_EQ(ids_of(split.validation),
            (std::vector<std::string>{"r19", "r18", "r11", "r10", "r3", "r2"}));
  EXPECT_EQ(split.train.size(), 14u);
  EXPECT_EQ(split.train.front().id, "r17");
  EXPECT_TRUE(hold_out_images(records, 0, 1).validation.empty());
  expect_user_error(ExitCode::data, {"10 of 10"}, [&] { hold_out_images(records, 0.95, 1); });
}

TEST(HoldOutImages, TakesRecordsWithoutImageOneByOne) {
  std::vector<Record> records;
  for (int i = 0; i < 10; ++i) records.push_back(make_record("r" + std::to_string(i), ""));
  EXPECT_EQ(ids_of(hold_out_images(records, 0.1, 3407).validation),
            (std::vector<std::string>{"r9"}));
}

}  // namespace
}  // namespace medvqa::data
