#include "medvqa/train/evaluate_only.h"

#include <gtest/gtest.h>

#include <set>

#include "tests/train/train_test_support.h"

namespace medvqa::train {
namespace {

class EvaluatingOnly : public ::testing::Test {
 protected:
  Config config(const std::vector<std::string>& overrides = {}) {
    json c = fixture_config(folder_);
    c["data"]["validation"] = validation_like_train();
    return load(folder_, c, overrides);
  }
  TempFolder folder_;
};

TEST_F(EvaluatingOnly, ScoresAsASessionDoesAndWritesNothing) {
  const Config c = config();
  const Evaluation e = evaluate_only(c, false);
  Session s(c, Session::Purpose::train);
  const Evaluation expected =
      evaluate(s.backend(), s.arenas(), s.model(), s.data(), c.train.batch_size);
  EXPECT_EQ(e.loss, expected.loss);
  EXPECT_EQ(e.token_accuracy, expected.token_accuracy);
  EXPECT_EQ(e.yes_no_samples, expected.yes_no_samples);
  EXPECT_FALSE(fs::exists(c.output));
}

TEST_F(EvaluatingOnly, EveryQuestionGetsAnotherImage) {
  const Config c = config();
  const ModelInputs model = open_model(c, true);
  const DataInputs before = open_data(c, model);
  DataInputs after = open_data(c, model);
  DataInputs again = open_data(c, model);
  shuffle_images(after, c.data, 5);
  shuffle_images(again, c.data, 5);
  ASSERT_EQ(after.validation_records.size(), before.validation_records.size());
  std::map<fs::path, fs::path> other;
  for (std::size_t i = 0; i < before.validation_records.size(); ++i) {
    const data::Record& old = before.validation_records[i];
    const data::Record& moved = after.validation_records[i];
    EXPECT_EQ(moved.question, old.question);
    EXPECT_EQ(moved.answer, old.answer);
    EXPECT_EQ(moved.image, again.validation_records[i].image);
    EXPECT_EQ(after.validation.examples[i].image, moved.image);
    if (old.image.empty()) continue;
    EXPECT_NE(moved.image, old.image) << old.id;
    EXPECT_EQ(other.emplace(old.image, moved.image).first->second, moved.image);
  }
  // One cycle: no two images become the same one.
  std::set<fs::path> targets;
  for (const auto& pair : other) targets.insert(pair.second);
  EXPECT_GE(other.size(), 2u);
  EXPECT_EQ(targets.size(), other.size());
}

TEST_F(EvaluatingOnly, SayWhatIsMissing) {
  expect_user_error(ExitCode::config, {"--evaluate", "data.validation"},
                    [&] { evaluate_only(config({"data.validation=null"}), false); });
  const Config c = config();
  const ModelInputs model = open_model(c, true);
  DataInputs inputs = open_data(c, model);
  inputs.validation_records.resize(1);
  expect_user_error(ExitCode::data, {"--shuffle-images", "at least 2"},
                    [&] { shuffle_images(inputs, c.data, 1); });
}

}  // namespace
}  // namespace medvqa::train
