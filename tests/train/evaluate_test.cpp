#include "medvqa/train/evaluate.h"

#include <gtest/gtest.h>

#include "tests/train/train_test_support.h"

namespace medvqa::train {
namespace {

class Evaluating : public ::testing::Test {
 protected:
  // Evaluates on the given lines of a data set whose images are the fixture's.
  Config config(const std::vector<json>& lines, const std::vector<std::string>& overrides = {}) {
    return config_of({lines}, overrides);
  }
  // The same with several sources.
  Config config_of(const std::vector<std::vector<json>>& sources,
                   const std::vector<std::string>& overrides) {
    json c = fixture_config(folder_);
    c["data"]["validation"] = json::array();
    for (const std::vector<json>& lines : sources) {
      std::string text;
      for (json line : lines) {
        line["image"] = (fixture() / "images" / line.at("image").get<std::string>()).string();
        text += line.dump() + "\n";
      }
      const std::string name = "validation" + std::to_string(files_++) + ".jsonl";
      c["data"]["validation"].push_back(
          {{"format", "jsonl"}, {"path", folder_.write(name, text).string()}});
    }
    return load(folder_, c, overrides);
  }
  static Evaluation evaluated(Session& s, std::int64_t batch_size) {
    return evaluate(s.backend(), s.arenas(), s.model(), s.data(), batch_size);
  }
  // Negative log likelihood of an answer, the sample alone in its batch.
  static PassResult alone(Session& s, std::size_t i, const std::string& answer) {
    const data::Example e = s.data().processor->prepare(s.data().validation_records[i], answer);
    const data::Example* one[] = {&e};
    PassOptions options;
    options.training = false;
    return run_pass(s.backend(), s.arenas(), s.model(),
                    make_micro_batch(data::pack(*s.data().processor, one, true)), options);
  }
  TempFolder folder_;
  int files_ = 0;
};

json line(const char* image, const char* question, const char* answer) {
  return {{"image", image}, {"question", question}, {"answer", answer}};
}

std::vector<json> mixed_lines() {
  return {line("image00.jpg", "Is image 0 axial?", "yes"),
          line("image01.png", "Is image 1 axial?", "No"),
          line("image02.jpg", "What is it?", "modality"),
          line("image02.jpg", "Is image 2 axial?", "YES"),
          line("image01.png", "Where?", "no evidence"),
          line("image00.jpg", "Is it?", "no")};
}

const char* opposite(const std::string& answer) {
  if (answer == "yes") return "no";
  if (answer == "no") return "yes";
  if (answer == "No") return "Yes";
  return answer == "YES" ? "No" : nullptr;
}

TEST_F(Evaluating, LossAndAccuracyAreThoseOfEverySampleAlone) {
  const Config c = config(mixed_lines(), {"train.batch_size=3"});
  Session session(c, Session::Purpose::train);
  const Evaluation e = evaluated(session, 3);
  double nll = 0;
  std::int64_t tokens = 0, correct = 0, yes_no = 0, right = 0;
  for (std::size_t i = 0; i < 6; ++i) {
    const std::string answer = mixed_lines()[i].at("answer");
    const PassResult r = alone(session, i, answer);
    nll += r.nll_sum();
    tokens += static_cast<std::int64_t>(r.nll.size());
    for (const std::int32_t hit : r.correct) correct += hit;
    if (opposite(answer) == nullptr) continue;
    ++yes_no;
    if (r.nll_sum() < alone(session, i, opposite(answer)).nll_sum()) ++right;
  }
  EXPECT_EQ(e.samples, 6);
  EXPECT_EQ(e.label_tokens, tokens);
  EXPECT_NEAR(e.loss, nll / static_cast<double>(tokens), kLossTolerance * e.loss);
  EXPECT_DOUBLE_EQ(e.token_accuracy, static_cast<double>(correct) / static_cast<double>(tokens));
  EXPECT_EQ(e.yes_no_samples, 4);
  EXPECT_EQ(yes_no, 4);
  EXPECT_DOUBLE_EQ(e.yes_no_accuracy, static_cast<double>(right) / 4);
}

TEST_F(Evaluating, TheBatchSizeDoesNotMatter) {
  const Config c = config(mixed_lines(), {"train.batch_size=6"});
  Session session(c, Session::Purpose::train);
  const Evaluation whole = evaluated(session, 6);
  for (const std::int64_t size : {1, 2, 4, 100}) {
    const Evaluation e = evaluated(session, size);
    EXPECT_NEAR(e.loss, whole.loss, kLossTolerance * whole.loss) << size;
    EXPECT_EQ(e.token_accuracy, whole.token_accuracy);
    EXPECT_EQ(e.yes_no_accuracy, whole.yes_no_accuracy);
    EXPECT_EQ(e.label_tokens, whole.label_tokens);
    EXPECT_EQ(e.samples, whole.samples);
  }
}

// Teach the answers; the same model is then right on them and wrong on their opposites.
TEST_F(Evaluating, YesAndNoAreJudgedByLikelihoodInBothDirections) {
  const std::vector<json> asked{line("image00.jpg", "Is image 0 axial?", "yes"),
                                line("image01.png", "Is image 1 axial?", "no"),
                                line("image02.jpg", "Is image 2 axial?", "yes")};
  std::vector<json> swapped = asked;
  for (json& l : swapped) l["answer"] = opposite(l["answer"]);

  const Config c = config(asked, {"train.batch_size=3"});
  const Config opposite_config = config(swapped, {"train.batch_size=3"});
  Session session(c, Session::Purpose::train);
  Session other(opposite_config, Session::Purpose::train);
  std::vector<const data::Example*> examples;
  for (const auto& e : session.data().validation.examples) examples.push_back(&e);
  const std::vector<MicroBatch> lesson{
      make_micro_batch(data::pack(*session.data().processor, examples, true))};
  for (std::int64_t step = 1; step <= 25; ++step) {
    const StepResult r = accumulate_gradients(session.backend(), session.arenas(), session.model(),
                                              lesson, session.pass_options(0));
    update(session.backend(), session.model(), r.grad_norm,
           {.learning_rate = 1e-2, .max_grad_norm = 1, .step = step});
  }
  EXPECT_EQ(evaluated(session, 3).yes_no_accuracy, 1);
  const Evaluation wrong =
      evaluate(session.backend(), session.arenas(), session.model(), other.data(), 3);
  EXPECT_EQ(wrong.yes_no_accuracy, 0);
  EXPECT_EQ(wrong.yes_no_samples, 3);
  EXPECT_GT(wrong.loss, evaluated(session, 3).loss);
}

TEST_F(Evaluating, WithoutYesAndNoThereIsNoSuchScore) {
  const Config c = config({line("image00.jpg", "Where?", "left")});
  Session session(c, Session::Purpose::train);
  const Evaluation e = evaluated(session, 2);
  EXPECT_EQ(e.yes_no_samples, 0);
  const json j = to_json(e, 12);
  EXPECT_EQ(j.at("event"), "eval");
  EXPECT_EQ(j.at("step"), 12);
  EXPECT_EQ(j.at("loss"), e.loss);
  EXPECT_TRUE(j.at("yes_no_accuracy").is_null());
  EXPECT_EQ(j.at("samples"), 1);
}

TEST_F(Evaluating, DroppedValidationSamplesLeaveTheOthersInPlace) {
  std::vector<json> lines = mixed_lines();
  const std::string lengthy(600, 'x');
  lines.insert(lines.begin() + 1, line("image00.jpg", lengthy.c_str(), "no"));
  const Config c = config(lines, {"data.too_long=drop", "data.max_length=400"});
  Session session(c, Session::Purpose::train);
  ASSERT_EQ(session.data().validation.examples.size(), 6u);
  ASSERT_EQ(session.data().validation_records.size(), 6u);
  for (std::size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(session.data().validation.examples[i].id, session.data().validation_records[i].id);
  }
  EXPECT_EQ(evaluated(session, 2).yes_no_samples, 4);
}

// An id is unique inside its source only: "b" is too long in the first and not in the second.
TEST_F(Evaluating, ADroppedSampleLeavesItsNamesakeOfAnotherSource) {
  const std::string lengthy(600, 'x');
  std::vector<json> first{line("image00.jpg", "Is image 0 axial?", "yes"),
                          line("image01.png", lengthy.c_str(), "no")};
  std::vector<json> second{line("image02.jpg", "Is image 2 axial?", "no"),
                           line("image01.png", "Where?", "left")};
  for (std::vector<json>* lines : {&first, &second}) {
    (*lines)[0]["id"] = lines == &first ? "a" : "b";
    (*lines)[1]["id"] = lines == &first ? "b" : "a";
  }
  const Config c = config_of({first, second}, {"data.too_long=drop", "data.max_length=400"});
  const ModelInputs model = open_model(c, true);
  const DataInputs data = open_data(c, model);
  ASSERT_EQ(data.validation.examples.size(), 3u);
  ASSERT_EQ(data.validation_records.size(), 3u);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(data.processor->prepare(data.validation_records[i]).ids,
              data.validation.examples[i].ids);
  }
  EXPECT_EQ(data.validation_too_long.size(), 1u);
  EXPECT_NE(data.validation_too_long.front().find("row 2"), std::string::npos);
}

}  // namespace
}  // namespace medvqa::train
