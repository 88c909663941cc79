#include "src/data/csv.h"

#include "medvqa/data/record.h"
#include "tests/data/data_test_support.h"

namespace medvqa::data {
namespace {

using Cells = std::vector<std::string>;

std::vector<CsvRow> rows_of(std::string_view text, char delimiter = ',') {
  CsvText csv(text, delimiter);
  std::vector<CsvRow> rows;
  while (auto row = csv.next()) rows.push_back(std::move(*row));
  return rows;
}

Cells only_row(std::string_view text, char delimiter = ',') {
  const auto rows = rows_of(text, delimiter);
  EXPECT_EQ(rows.size(), 1u) << text;
  EXPECT_EQ(rows.at(0).problem, "") << text;
  return rows.at(0).cells;
}

TEST(CsvText, SplitsCells) {
  EXPECT_EQ(only_row("a,b,c"), (Cells{"a", "b", "c"}));
  EXPECT_EQ(only_row("a,,"), (Cells{"a", "", ""}));
  EXPECT_EQ(only_row(","), (Cells{"", ""}));
  EXPECT_EQ(only_row(" a , b"), (Cells{" a ", " b"}));
  EXPECT_EQ(only_row("\"a,b\",\"\",\"c\"\"d\"\"\""), (Cells{"a,b", "", "c\"d\""}));
  EXPECT_EQ(only_row("\"a\r\nb\",\"\n\"\r\n"), (Cells{"a\r\nb", "\n"}));
  EXPECT_EQ(only_row("a;b,c;d", ';'), (Cells{"a", "b,c", "d"}));
  EXPECT_TRUE(rows_of("").empty());
  EXPECT_TRUE(rows_of("\n\r\n\r").empty());
}

TEST(CsvText, CountsLinesOfTheFile) {
  const auto rows = rows_of("a,b\r\n\"1\n2\r\n3\",4\r5,6\n\n7,8");
  std::vector<std::int64_t> lines;
  for (const CsvRow& row : rows) lines.push_back(row.line);
  EXPECT_EQ(lines, (std::vector<std::int64_t>{1, 2, 5, 7}));
  EXPECT_EQ(rows.back().cells, (Cells{"7", "8"}));
}

TEST(CsvText, NamesWhatBreaksTheForm) {
  const auto stray = rows_of("a,b\"c\n1,2");
  EXPECT_NE(stray.at(0).problem.find("without quotes"), std::string::npos);
  EXPECT_EQ(stray.at(1).cells, (Cells{"1", "2"}));
  const auto behind = rows_of("\"a\"b,c\n1,2");
  EXPECT_NE(behind.at(0).problem.find("behind a closing quote"), std::string::npos);
  EXPECT_EQ(behind.at(1).cells, (Cells{"1", "2"}));
  const auto open = rows_of("1\n2,\"x\ny");
  EXPECT_EQ(open.size(), 2u);
  EXPECT_NE(open.at(1).problem.find("opened in line 2"), std::string::npos);
}

// Every text of cells, written as the RFC says, is read back as it was.
TEST(CsvText, ReadsBackWhatIsWritten) {
  const std::string letters = "a,\"\r\n ;";
  Cells cells;
  for (std::size_t n = 0; n < 8u * 8 * 8 * 8; ++n) {
    std::string cell;
    for (std::size_t rest = n; rest > 0; rest /= 8) {
      if (rest % 8 < letters.size()) cell += letters[rest % 8];
    }
    cells.push_back(cell);
  }
  std::string text;
  for (const std::string& cell : cells) {
    text += text.empty() ? "\"" : ",\"";
    for (const char c : cell) text += c == '"' ? std::string("\"\"") : std::string(1, c);
    text += '"';
  }
  EXPECT_EQ(only_row(text), cells);
}

class CsvRecords : public ::testing::Test {
 protected:
  Source write(const std::string& text) { return {"csv", folder_.write("rows.csv", text), ""}; }
  TempFolder folder_;
};

TEST_F(CsvRecords, TakeColumnsFromTheHeader) {
  folder_.write("images/a.png", "x");
  const Records records =
      read_records(write("\xef\xbb\xbfquestion,image,answer,age,label,id\r\n"
                         "\"Is it, or\nnot?\",a.png,\"yes, \"\"it\"\" is\",007,B| A,first\r\n"
                         "Where?,,there,,,\r\n"));
  ASSERT_EQ(records.rows.size(), 2u);
  const Record& first = records.rows[0];
  EXPECT_EQ(first.id, "first");
  EXPECT_EQ(first.question, "Is it, or\nnot?");
  EXPECT_EQ(first.answer, "yes, \"it\" is");
  EXPECT_EQ(first.image, folder_.path() / "images/a.png");
  EXPECT_EQ(first.columns.at("age"), "007");
  EXPECT_EQ(first.columns.at("label"), "B|A");
  const Record& second = records.rows[1];
  EXPECT_EQ(second.id, "rows:4");
  EXPECT_TRUE(second.image.empty());
  EXPECT_EQ(second.columns.at("age"), "");
  EXPECT_TRUE(second.place.ends_with("rows.csv, line 4")) << second.place;
}

TEST_F(CsvRecords, AreChosenBySplit) {
  Source source = write("question,answer,split\n1,a,train\n2,b,valid\n");
  source.split = "val";
  EXPECT_EQ(ids_of(read_records(source).rows), (std::vector<std::string>{"rows:3"}));
  source.split = "test";
  expect_data_error({"\"test\"", "train, val"}, source);
  folder_.write("sets/train.csv", "question,answer\nq,a\n");
  folder_.write("sets/test.csv", "question,answer\nr,a\n");
  EXPECT_EQ(read_records({"csv", folder_.path() / "sets", "test"}).rows.at(0).question, "r");
  EXPECT_EQ(read_records({"csv", folder_.path() / "sets", ""}).rows.size(), 2u);
  expect_data_error({"no such files", "dataset.csv"}, {"csv", TempFolder().path(), ""});
}

TEST_F(CsvRecords, MayHaveAnotherDelimiter) {
  Source source = write("question;answer\nIs it, or not?;no\n");
  source.delimiter = ';';
  EXPECT_EQ(read_records(source).rows.at(0).question, "Is it, or not?");
}

TEST_F(CsvRecords, BadRowsAreNamedByLine) {
  const auto fails = [&](const std::string& row, std::vector<std::string> parts) {
    parts.push_back("rows.csv, line 4");
    const std::string text = "question,answer,image\n\"two\nlines\",a,\n" + row + "\nq,a,\n";
    expect_data_error(parts, write(text));
    Source source = write(text);
    source.keep_going = true;
    EXPECT_EQ(read_records(source).bad.size(), 1u) << row;
    EXPECT_EQ(read_records(source).rows.size(), 2u) << row;
  };
  fails("q,a", {"2 cells, expected 3"});
  fails("q,a,,", {"4 cells, expected 3"});
  fails("q,,", {"\"answer\"", "empty"});
  fails(" ,a,", {"\"question\"", "empty"});
  fails("q,\xff,", {"UTF-8"});
  fails("q \"x\",a,", {"quote"});
  fails("\"q\"x,a,", {"closing quote"});
}

TEST_F(CsvRecords, BadFilesAreNamed) {
  expect_data_error({"rows.csv", "empty"}, write(""));
  expect_data_error({"rows.csv", "no rows"}, write("question,answer\n"));
  expect_data_error({"rows.csv, line 1", "twice", "\"a\""}, write("a,b,a\n1,2,3\n"));
  expect_data_error({"rows.csv, line 1", "without a name"}, write("question,,answer\nq,,a\n"));
  expect_data_error({"rows.csv, line 1", "UTF-8"}, write("question,\xff\n"));
  expect_data_error({"rows.csv, line 1", "closing quote"}, write("\"question\"x,answer\n"));
  expect_data_error({"line 2", "\"answer\"", "only \"frage\", \"question\""},
                    write("question,frage\nq,f\n"));
  expect_data_error({"line 2", "never closed"}, write("question,answer\nq,\"a\nb,c\n"));
  expect_data_error({"gone.csv", "nothing"}, {"csv", folder_.path() / "gone.csv", ""});
}

}  // namespace
}  // namespace medvqa::data
