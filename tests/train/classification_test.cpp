// Text classification: a head trimmed to the classes' tokens and trained beside the adapters.
#include <gtest/gtest.h>

#include "medvqa/io/classifier_head.h"
#include "medvqa/train/adapter_files.h"
#include "medvqa/train/evaluate.h"
#include "tests/train/class_test_support.h"

namespace medvqa::train {
namespace {

class Classification : public ::testing::Test {
 protected:
  Gradients first(const nlohmann::ordered_json& config, const std::vector<std::string>& overrides) {
    const Config c = load(folder_, config, overrides);
    Session session(c, Session::Purpose::train);
    return gradients_of(session);
  }
  TempFolder folder_;
};

TEST_F(Classification, TheHeadIsTheRowsOfTheClassTokensInTheOrderWritten) {
  const Config c = load(folder_, class_config(folder_));
  EXPECT_EQ(c.data.classes->labels, (std::vector<std::string>{"b", "a", "c"}));
  Session session(c, Session::Purpose::train);
  // The tokens of "7", "1" and "z": bytes.
  EXPECT_EQ(session.model_inputs().settings.head_rows, (std::vector<std::int32_t>{'7', '1', 'z'}));
  const Tensor& head = session.model().head().value;
  ASSERT_EQ(head.dim(0), 3);
  const nn::HostTensor all = session.model_inputs().source->dense(
      {"lm_head.weight", {272, head.dim(1)}, nn::TensorRole::linear});
  const std::vector<float> values = values_of(session.backend(), head);
  const auto* stored = reinterpret_cast<const BFloat16*>(all.bytes.data());
  for (std::int64_t i = 0; i < head.dim(1); ++i) {
    EXPECT_EQ(values[static_cast<std::size_t>(head.dim(1) + i)],
              static_cast<float>(stored['1' * head.dim(1) + i]));
  }
  EXPECT_EQ(session.model().trained_names().back(), "head.weight");
}

TEST_F(Classification, ABatchsRowsAreTheLastTokens) {
  MicroBatch b;
  b.input.cu_seqlens = {0, 3, 4, 8};
  b.classes = {1, 0, 2};
  b.find_logit_rows();
  EXPECT_EQ(b.logit_rows, (std::vector<std::int32_t>{2, 3, 7}));
  EXPECT_EQ(b.targets, b.classes);
}

TEST_F(Classification, RecomputationChangesNoBit) {
  for (const char* compute : {"model.compute=f32", "model.compute=bf16"}) {
    const Gradients kept = first(class_config(folder_), {compute, "train.recompute=none"});
    EXPECT_GT(kept.result.grad_norm, 0);
    EXPECT_EQ(kept.result.label_tokens, 4);
    for (const char* policy : {"train.recompute=all", "train.recompute=attention_saved"}) {
      EXPECT_TRUE(first(class_config(folder_), {compute, policy}) == kept) << compute << policy;
    }
  }
}

TEST_F(Classification, HowSamplesArePackedDoesNotMatter) {
  const Gradients pairs = first(class_config(folder_), {});
  for (const std::vector<std::string>& other :
       {std::vector<std::string>{"train.batch_size=4", "train.gradient_accumulation=1"},
        {"train.batch_size=1", "train.gradient_accumulation=4"},
        {"data.packing=false"}}) {
    expect_close(first(class_config(folder_), other), pairs);
  }
}

// d loss / d w against differences of the loss itself, along the gradient.
TEST_F(Classification, TheHeadsGradientIsThatOfTheLoss) {
  const Config c = load(folder_, class_config(folder_));
  Session session(c, Session::Purpose::train);
  const Gradients g = gradients_of(session);
  const std::vector<float>& direction = g.of.back();
  const Tensor& head = session.model().head().value;
  const std::vector<float> start = values_of(session.backend(), head);
  double squares = 0;
  for (const float v : direction) squares += static_cast<double>(v) * static_cast<double>(v);
  const auto loss_at = [&](double step) {
    std::vector<float> moved = start;
    for (std::size_t i = 0; i < moved.size(); ++i) {
      moved[i] += static_cast<float>(step) * direction[i];
    }
    session.backend().upload(moved.data(), moved.size() * sizeof(float), head);
    return gradients_of(session).result.loss;
  };
  const double step = 1e-2 / std::sqrt(squares);
  const double slope = (loss_at(step) - loss_at(-step)) / (2 * step);
  // Central differences are off by the third derivative times step^2, and by rounding of the loss.
  EXPECT_NEAR(slope / squares, 1, 1e-3);
}

TEST_F(Classification, AResumedRunIsTheStraightOne) {
  const Config straight = load(folder_, class_config(folder_), {"data.group_by_length=true"});
  train(straight, {});
  auto config = class_config(folder_);
  config["output"] = (folder_.path() / "stopped").string();
  const Config stopped = load(folder_, config, {"data.group_by_length=true"});
  EXPECT_EQ(train(stopped, stop_after(2)), Outcome::stopped);
  EXPECT_EQ(train(stopped, to_the_end({.resume = "auto"})), Outcome::finished);
  for (const char* name : {"adapter_model.safetensors", "head.safetensors"}) {
    EXPECT_EQ(bytes_of_file(straight.output / "adapter" / name),
              bytes_of_file(stopped.output / "adapter" / name))
        << name;
  }
  EXPECT_EQ(metrics_of(straight.output), metrics_of(stopped.output));
  const json evaluation = metrics_of(straight.output).back();
  EXPECT_EQ(evaluation.at("event"), "eval");
  EXPECT_EQ(evaluation.at("classes"), (json{"b", "a", "c"}));
  EXPECT_EQ(evaluation.at("confusion").size(), 3u);
  EXPECT_EQ(evaluation.at("accuracy"), evaluation.at("token_accuracy"));
  EXPECT_EQ(evaluation.at("f1").size(), 3u);
}

TEST_F(Classification, TheSavedHeadIsWhereAnotherRunStarts) {
  const Config c = load(folder_, class_config(folder_));
  train(c, {});
  const fs::path adapter = c.output / "adapter";
  const io::SafetensorsFile file(adapter / io::kHeadFile);
  EXPECT_EQ(file.metadata().at("labels"), R"(["b","a","c"])");
  EXPECT_EQ(file.metadata().at("token_ids"), "[55,49,122]");
  EXPECT_EQ(io::SafetensorsFile(adapter / "adapter_model.safetensors").metadata().size(), 1u);

  auto next = class_config(folder_);
  next["lora"]["init_from"] = adapter.string();
  const Config again = load(folder_, next);
  Session session(again, Session::Purpose::train);
  const std::vector<std::int32_t> tokens{'7', '1', 'z'};
  EXPECT_EQ(values_of(session.backend(), session.model().head().value),
            read_head(adapter, tokens, session.model().head().value.dim(1)));
  const Config swapped =
      load(folder_, next, {R"(classification.classes={"a": "1", "b": "7", "c": "z"})"});
  expect_user_error(ExitCode::model, {"head.safetensors", "[55, 49, 122]", "[49, 55, 122]"},
                    [&] { Session(swapped, Session::Purpose::train); });
}

TEST_F(Classification, TheScoresAreThoseOfEverySampleAlone) {
  const Config c = load(folder_, class_config(folder_), {"train.batch_size=5"});
  Session session(c, Session::Purpose::train);
  const DataInputs& data = session.data();
  const Evaluation e = evaluate(session.backend(), session.arenas(), session.model(), data, 5);
  const std::size_t count = data.validation.examples.size();
  ASSERT_GT(count, 2u);
  PassOptions options;
  options.training = false;
  double nll = 0;
  std::int64_t right = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const MicroBatch one =
        dry_micro_batch(*data.processor, data.validation, {static_cast<std::int64_t>(i)});
    const PassResult r =
        run_pass(session.backend(), session.arenas(), session.model(), one, options);
    ASSERT_EQ(r.nll.size(), 1u);
    nll += r.nll_sum();
    right += r.correct.front();
  }
  EXPECT_NEAR(e.loss, nll / static_cast<double>(count), kLossTolerance * e.loss);
  EXPECT_DOUBLE_EQ(e.classes->accuracy, static_cast<double>(right) / static_cast<double>(count));
  EXPECT_EQ(e.samples, static_cast<std::int64_t>(count));
}

}  // namespace
}  // namespace medvqa::train
