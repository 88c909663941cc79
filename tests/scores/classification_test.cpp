#include "medvqa/scores/classification.h"

#include <gtest/gtest.h>

namespace medvqa::scores {
namespace {

using Counts = std::vector<std::vector<std::int64_t>>;

const std::vector<std::int32_t> kTruth{0, 1, 2, 2, 1, 0, 0, 2, 1, 1, 0, 2, 2, 2, 0, 1, 1};
const std::vector<std::int32_t> kPredicted{0, 1, 2, 1, 1, 0, 1, 2, 0, 1, 0, 2, 3, 2, 0, 1, 2};

// scikit-learn 1.9.1 with labels=[0, 1, 2, 3, 4], zero_division=0: class 3 is only predicted,
// class 4 does not occur.
TEST(Classification, ScoresAreThoseOfScikitLearn) {
  const Classification s = score_classes(kTruth, kPredicted, 5);
  EXPECT_EQ(s.samples, 17);
  EXPECT_DOUBLE_EQ(s.accuracy, 0.7058823529411765);
  EXPECT_DOUBLE_EQ(s.macro_f1, 0.43878787878787884);
  const std::vector<double> precision{0.8, 0.6666666666666666, 0.8, 0, 0};
  const std::vector<double> recall{0.8, 0.6666666666666666, 0.6666666666666666, 0, 0};
  const std::vector<double> f1{0.8, 0.6666666666666666, 0.7272727272727273, 0, 0};
  const std::vector<std::int64_t> samples{5, 6, 6, 0, 0};
  ASSERT_EQ(s.classes.size(), 5u);
  for (std::size_t c = 0; c < 5; ++c) {
    EXPECT_DOUBLE_EQ(s.classes[c].precision, precision[c]) << c;
    EXPECT_DOUBLE_EQ(s.classes[c].recall, recall[c]) << c;
    EXPECT_DOUBLE_EQ(s.classes[c].f1, f1[c]) << c;
    EXPECT_EQ(s.classes[c].samples, samples[c]) << c;
  }
  EXPECT_EQ(
      s.confusion,
      (Counts{
          {4, 1, 0, 0, 0}, {1, 4, 1, 0, 0}, {0, 1, 4, 1, 0}, {0, 0, 0, 0, 0}, {0, 0, 0, 0, 0}}));
}

TEST(Classification, WithoutSamplesEverythingIsZero) {
  const Classification s = score_classes({}, {}, 2);
  EXPECT_EQ(s.samples, 0);
  EXPECT_EQ(s.accuracy, 0);
  EXPECT_EQ(s.macro_f1, 0);
  EXPECT_EQ(s.confusion, (Counts{{0, 0}, {0, 0}}));
}

TEST(Classification, TheTableHasARowATrueClass) {
  const std::vector<std::int32_t> truth{0, 0, 1}, predicted{0, 1, 1};
  const std::vector<std::string> labels{"no", "pneumothorax"};
  const std::vector<std::string> lines =
      confusion_table(score_classes(truth, predicted, 2), labels);
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[0], "    predicted           no pneumothorax           F1");
  EXPECT_EQ(lines[1], "           no            1            1        0.667");
  EXPECT_EQ(lines[2], " pneumothorax            0            1        0.667");
}

}  // namespace
}  // namespace medvqa::scores
