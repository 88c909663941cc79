// f32, bf16 and f16 on one step of the committed tiny model.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "medvqa/train/step.h"
#include "tests/train/train_test_support.h"

namespace medvqa::train {
namespace {

struct Outcome16 {
  double loss = 0;
  std::vector<float> logits;
  Gradients gradients;
};

Outcome16 outcome_of(const TempFolder& folder, const std::string& compute) {
  const Config config = load(folder, fixture_config(folder), {"model.compute=" + compute});
  Session session(config, Session::Purpose::train);
  EXPECT_EQ(medvqa::name_of(session.model_inputs().settings.compute), compute);
  Outcome16 o;
  o.gradients = gradients_of(session);
  o.loss = o.gradients.result.loss;
  PassOptions options;
  options.training = false;
  options.want_logits = true;
  // The proof of the adapter takes logits of this batch: there is room for them.
  const MicroBatch batch = batches_of(session, session.steps().size() - 1).front();
  o.logits = run_pass(session.backend(), session.arenas(), session.model(), batch, options).logits;
  return o;
}

double median_gradient_difference(const Gradients& a, const Gradients& b) {
  std::vector<double> differences;
  for (std::size_t i = 0; i < a.of.size(); ++i) {
    differences.push_back(relative_difference(a.of[i], b.of[i]));
  }
  std::nth_element(differences.begin(),
                   differences.begin() + std::ptrdiff_t(differences.size() / 2), differences.end());
  return differences[differences.size() / 2];
}

// Two vision blocks, the merger and two decoder blocks round about a dozen tensors each, one after
// another, and the residual stream adds them up: a random walk of 5 x 12 steps of u, the unit
// roundoff. Three times that is the bound of the forward; the backward walks it twice.
TEST(Precision, LowerTypesAgreeWithinTheirRounding) {
  const TempFolder folder;
  const Outcome16 exact = outcome_of(folder, "f32");
  const double steps = std::sqrt(5 * 12.0);
  double before = 1;
  for (const auto& type : {std::pair("bf16", 0x1p-8), std::pair("f16", 0x1p-11)}) {
    const Outcome16 o = outcome_of(folder, type.first);
    const double bound = 3 * steps * type.second;
    const double logits = relative_difference(o.logits, exact.logits);
    EXPECT_LE(logits, bound) << type.first;
    EXPECT_GT(logits, type.second / 64) << type.first << " computes in f32";
    EXPECT_LE(std::abs(o.loss - exact.loss), bound * exact.loss) << type.first;
    EXPECT_LE(median_gradient_difference(o.gradients, exact.gradients), 2 * bound) << type.first;
    EXPECT_LT(logits, before / 3) << "f16 has three bits more than bf16";
    before = logits;
  }
}

// A T4: its auto is f16, and bf16 has no products there.
TEST(Precision, IsTheDevicesOwnWhereTheConfigurationSaysAuto) {
  const TempFolder folder;
  const ops::DeviceTraits t4{.name = "t4", .compute = DType::f16};
  const auto compute = [&](const std::string& name, const ops::DeviceTraits& device) {
    const Config config = load(folder, fixture_config(folder), {"model.compute=" + name});
    return open_model(config, false, device).settings.compute;
  };
  EXPECT_EQ(compute("auto", t4), DType::f16);
  EXPECT_EQ(compute("f32", t4), DType::f32);
  EXPECT_EQ(compute("bf16", {.name = "a100", .compute = DType::bf16}), DType::bf16);
  expect_user_error(ExitCode::config, {"model.compute", "bf16", "t4", "f16"},
                    [&] { compute("bf16", t4); });
}

}  // namespace
}  // namespace medvqa::train
