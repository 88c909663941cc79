// What must hold for the real step on the committed tiny model, whatever the settings.
#include "medvqa/train/step.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "medvqa/train/adapter_files.h"
#include "medvqa/train/backend_factory.h"
#include "medvqa/train/evaluate.h"
#include "tests/train/train_test_support.h"

namespace medvqa::train {
namespace {

class Step : public ::testing::Test {
 protected:
  Gradients first(const std::vector<std::string>& overrides) {
    const Config config = load(folder_, fixture_config(folder_), overrides);
    Session session(config, Session::Purpose::train);
    return gradients_of(session);
  }
  TempFolder folder_;
};

void one_update(Session& session, std::size_t step, double rate) {
  const Gradients g = gradients_of(session, step);
  update(session.backend(), session.model(), g.result.grad_norm,
         {.learning_rate = rate,
          .weight_decay = session.config().train.weight_decay,
          .max_grad_norm = session.config().train.max_grad_norm,
          .step = static_cast<std::int64_t>(step) + 1});
}

TEST_F(Step, RecomputationChangesNoBit) {
  std::vector<Gradients> kept;
  for (const char* dropout : {"lora.dropout=0", "lora.dropout=0.3"}) {
    kept.push_back(first({dropout, "train.recompute=none"}));
    EXPECT_GT(kept.back().result.grad_norm, 0);
    for (const char* policy : {"train.recompute=all", "train.recompute=attention_saved"}) {
      EXPECT_TRUE(first({dropout, policy}) == kept.back()) << dropout << " " << policy;
    }
    EXPECT_TRUE(first({dropout, "train.recompute=none"}) == kept.back()) << "not repeatable";
  }
  EXPECT_NE(kept[0].result.loss, kept[1].result.loss) << "dropout does nothing";
}

TEST_F(Step, DropoutDiffersByStepAndMicroBatch) {
  const Config config =
      load(folder_, fixture_config(folder_),
           {"lora.dropout=0.3", "train.batch_size=1", "train.gradient_accumulation=1"});
  Session session(config, Session::Purpose::train);
  const MicroBatch sample = batches_of(session, 0).front();
  const std::vector<MicroBatch> once{sample}, twice{sample, sample};
  const auto loss = [&](const std::vector<MicroBatch>& batches, std::int64_t step) {
    return accumulate_gradients(session.backend(), session.arenas(), session.model(), batches,
                                session.pass_options(step))
        .loss;
  };
  EXPECT_EQ(loss(once, 0), loss(once, 0));
  EXPECT_NE(loss(once, 0), loss(once, 1));
  EXPECT_NE(loss(once, 0), loss(twice, 0)) << "both micro-batches drop the same elements";
}

TEST_F(Step, PackedIsSeparate) {
  expect_close(first({"data.packing=false"}), first({}));
}

TEST_F(Step, AccumulationIsOneBigBatch) {
  const Gradients big = first({"train.batch_size=4", "train.gradient_accumulation=1"});
  expect_close(first({"train.batch_size=1", "train.gradient_accumulation=4"}), big);
  expect_close(first({"train.batch_size=2", "train.gradient_accumulation=2"}), big);
  expect_close(first({"train.batch_size=3", "train.gradient_accumulation=1"}),
               first({"train.batch_size=1", "train.gradient_accumulation=3"}));
}

// The loss is over all label tokens of the step, not the mean of the micro-batches' means.
TEST_F(Step, TheLossWeighsLabelTokensAlike) {
  json c = fixture_config(folder_);
  c["data"]["validation"] = validation_like_train();  // its plan has room for forward passes
  const Config config = load(folder_, c, {"train.batch_size=1", "train.gradient_accumulation=6"});
  Session session(config, Session::Purpose::train);
  PassOptions forward;
  forward.training = false;
  double sum = 0, mean_of_means = 0;
  std::int64_t labels = 0;
  const auto batches = batches_of(session, 0);
  for (const MicroBatch& b : batches) {
    const PassResult r = run_pass(session.backend(), session.arenas(), session.model(), b, forward);
    ASSERT_EQ(static_cast<std::int64_t>(r.nll.size()), b.label_count());
    sum += r.nll_sum();
    mean_of_means +=
        r.nll_sum() / static_cast<double>(b.label_count()) / static_cast<double>(batches.size());
    labels += b.label_count();
  }
  const double loss = gradients_of(session).result.loss;
  EXPECT_DOUBLE_EQ(loss, sum / static_cast<double>(labels));
  EXPECT_GT(std::abs(loss - mean_of_means), 1e-3 * loss) << "the case tells nothing";
}

TEST_F(Step, TheGradientNormIsThatOfAllGradients) {
  const Gradients g = first({});
  double squares = 0;
  for (const auto& values : g.of) {
    for (const float v : values) squares += static_cast<double>(v) * static_cast<double>(v);
  }
  EXPECT_NEAR(g.result.grad_norm, std::sqrt(squares), kLossTolerance * std::sqrt(squares));
}

// m = 0.1 s g after the first update, s = max_grad_norm / (norm + 1e-6) if that is below 1.
TEST_F(Step, ClippingScalesTheGradients) {
  for (const double limit : {0.0, 1e-3, 1e6}) {
    const Config config = load(folder_, fixture_config(folder_), {"train.optimizer=adamw"});
    Session session(config, Session::Purpose::train);
    const Gradients g = gradients_of(session);
    update(session.backend(), session.model(), g.result.grad_norm,
           {.learning_rate = 0, .max_grad_norm = limit});
    const double scale = limit == 1e-3 ? limit / (g.result.grad_norm + 1e-6) : 1;
    const auto m = values_of(session.backend(), session.model().trained()[0].m);
    std::vector<float> expected;
    for (const float v : g.of[0]) expected.push_back(static_cast<float>(0.1 * scale) * v);
    EXPECT_LE(relative_difference(m, expected), 1e-6) << limit;
  }
}

TEST_F(Step, FrozenWeightsStayAsTheyAre) {
  const Config config = load(folder_, fixture_config(folder_));
  Session session(config, Session::Purpose::train);
  Arena& weights = session.arenas().weights();
  // A tensor without elements stands at the arena's top.
  const auto* top = static_cast<const std::byte*>(weights.allocate({0}, DType::u8).data);
  const std::vector<std::byte> before(top - weights.used(), top);
  ASSERT_GT(before.size(), 100000u);
  const auto adapter = values_of(session.backend(), session.model().trained()[0].value);
  for (std::size_t s = 0; s < 3; ++s) one_update(session, s, 1e-2);
  EXPECT_EQ(std::memcmp(before.data(), top - weights.used(), before.size()), 0);
  EXPECT_NE(values_of(session.backend(), session.model().trained()[0].value), adapter);
}

std::vector<float> logits_of(ops::Backend& backend, Arenas& arenas, const AdaptedModel& model,
                             const MicroBatch& batch) {
  PassOptions options;
  options.training = false;
  options.want_logits = true;
  return run_pass(backend, arenas, model, batch, options).logits;
}

TEST_F(Step, AnAdapterWithoutBIsTheBaseModel) {
  const Config config = load(folder_, fixture_config(folder_));
  Session session(config, Session::Purpose::train);
  const MicroBatch batch = batches_of(session, 3).front();
  const auto adapted = logits_of(session.backend(), session.arenas(), session.model(), batch);
  session.model().initialize_adapters(session.backend(), 1);
  const auto neutral = logits_of(session.backend(), session.arenas(), session.model(), batch);

  ModelInputs base = open_model(config, true);
  base.settings.lora.adapts = [](const std::string&, nn::LinearKind) { return false; };
  const auto backend = make_backend("cpu");
  PlannedWork work;
  work.logits = {batch};
  Arenas arenas(*backend, plan_memory(backend->traits(), base, {}, work).sizes);
  const AdaptedModel model(*backend, arenas, *base.source, base.config, base.settings);
  EXPECT_TRUE(model.modules().empty());
  EXPECT_EQ(neutral, logits_of(*backend, arenas, model, batch));
  EXPECT_NE(neutral, adapted);
}

TEST_F(Step, FourSamplesAreLearntByHeart) {
  json c = fixture_config(folder_);
  c["lora"].erase("init_from");
  const Config config = load(folder_, c,
                             {"train.batch_size=4", "train.gradient_accumulation=1",
                              "train.max_steps=1", "data.shuffle=false", "lora.alpha=64"});
  Session session(config, Session::Purpose::train);
  const auto batches = batches_of(session, 0);
  double first = 0, last = 0;
  for (std::int64_t step = 1; step <= 40; ++step) {
    const StepResult r = accumulate_gradients(session.backend(), session.arenas(), session.model(),
                                              batches, session.pass_options(0));
    if (step == 1) first = r.loss;
    last = r.loss;
    update(session.backend(), session.model(), r.grad_norm,
           {.learning_rate = 1e-2, .max_grad_norm = 1, .step = step});
  }
  EXPECT_GT(first, 4.0);
  EXPECT_LT(last, first / 10) << first << " -> " << last;
}

TEST(MicroBatchRows, LabelsCountInsideTheirSampleOnly) {
  MicroBatch b;
  b.input.cu_seqlens = {0, 3, 4, 8};
  b.input.ids = {5, 6, 7, 8, 9, 10, 11, 12};
  b.labels = {5, -100, 7, 8, 9, 10, -100, 12};
  b.find_logit_rows();
  b.find_logit_rows();
  // The first token of a sample is nobody's target: 5, 8 and 9 have no row.
  EXPECT_EQ(b.logit_rows, (std::vector<std::int32_t>{1, 4, 6}));
  EXPECT_EQ(b.targets, (std::vector<std::int32_t>{7, 10, 12}));
}

}  // namespace
}  // namespace medvqa::train
