// What the tests of the data module share: small sources on disk and a processor without a model.
#pragma once

#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "medvqa/core/error.h"
#include "medvqa/data/dataset.h"
#include "tests/io/io_test_support.h"

namespace medvqa::data {

using io::expect_user_error;
using io::TempFolder;

inline void expect_data_error(const std::vector<std::string>& parts, const Source& source) {
  expect_user_error(ExitCode::data, parts, [&] { read_records(source); });
}

inline std::vector<std::string> ids_of(const std::vector<Record>& records) {
  std::vector<std::string> ids;
  for (const Record& record : records) ids.push_back(record.id);
  return ids;
}

inline Record make_record(const std::string& id, const std::string& image,
                          const std::string& question = "what", const std::string& answer = "yes") {
  Record record;
  record.id = id;
  record.image = image;
  record.image_name = image;
  record.question = question;
  record.answer = answer;
  record.columns = {{"question", question}, {"answer", answer}};
  return record;
}

// One token a letter, the answer's are labels. Two patches of two columns an image.
class LetterProcessor : public Processor {
 public:
  Example prepare(const Record& record) const override { return prepare(record, record.answer); }
  Example prepare(const Record& record, const std::string& answer) const override {
    if (record.question == "broken") throw UserError(ExitCode::data, "broken " + record.id);
    Example example;
    example.id = record.id;
    example.image = record.image;
    for (const char c : record.question) add(example, c, kNoLabel);
    for (const char c : answer) add(example, c, c);
    if (!record.image.empty()) example.grid = {1, 1, 2};
    return example;
  }
  void load_patches(const Example& example, std::vector<float>& patches) const override {
    if (example.image.empty()) return;
    // Later samples are quicker, so that threads finish out of order.
    std::this_thread::sleep_for(std::chrono::milliseconds(example.id.size() % 3));
    if (example.image == "bad.png") throw UserError(ExitCode::data, "bad picture");
    if (example.image == "odd.png") throw InternalError("odd picture");
    ++loaded;
    for (int i = 0; i < 4; ++i)
      patches.push_back(static_cast<float>(example.id.back()) + 100.f * float(i));
  }
  std::int64_t patch_columns() const override { return 2; }
  std::string describe(const Example& example) const override { return example.id; }

  mutable std::atomic<int> loaded{0};

 private:
  static void add(Example& example, char c, std::int32_t label) {
    example.ids.push_back(c);
    example.labels.push_back(label);
  }
};

}  // namespace medvqa::data
