// f16: scaled gradients, skipped steps, and what a run says and keeps of them.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "medvqa/io/safetensors.h"
#include "medvqa/io/sha256.h"
#include "medvqa/train/overflow.h"
#include "tests/train/train_test_support.h"

namespace medvqa::train {
namespace {

constexpr double kOverflowing = 0x1p24;  // a loss scale that the tiny model's gradients exceed

class F16 : public ::testing::Test {
 protected:
  Config config(const std::string& output, const std::vector<std::string>& overrides = {}) {
    json c = fixture_config(folder_);
    c["model"]["compute"] = "f16";
    c["train"].update({{"max_steps", 12}, {"save_every", 1}, {"keep", 20}});
    c["output"] = (folder_.path() / output).string();
    return load(folder_, c, overrides);
  }
  fs::path at(const std::string& name) const { return folder_.path() / name; }
  fs::path checkpoint(const std::string& run, int step) const {
    return at(run) / "checkpoints" / fmt::format("step-{:06}", step);
  }
  json state(const std::string& run, int step) const {
    return json::parse(bytes_of_file(checkpoint(run, step) / "state.json"));
  }
  // A run of one step whose next ones overflow.
  void begin(const std::string& run) {
    EXPECT_EQ(train(config(run), stop_after(1)), Outcome::stopped);
    json s = state(run, 1);
    EXPECT_EQ(s.at("loss_scale"), (json{{"scale", 65536.0}, {"finite_steps", 1}, {"skipped", 0}}));
    s["loss_scale"]["scale"] = kOverflowing;
    std::ofstream(checkpoint(run, 1) / "state.json") << s.dump();
    io::write_manifest(checkpoint(run, 1));
  }
  void copy(const std::string& from, const std::string& to) const {
    fs::copy(at(from), at(to), fs::copy_options::recursive | fs::copy_options::copy_symlinks);
  }
  TempFolder folder_;
};

// Powers of two pass through every product exactly, where nothing underflows.
TEST_F(F16, TheScaleIsDividedOutExactly) {
  std::vector<Gradients> gradients;
  std::vector<std::vector<float>> values;
  for (const double scale : {1.0, 1024.0}) {
    const Config c = load(folder_, fixture_config(folder_));
    Session session(c, Session::Purpose::train);
    PassOptions options = session.pass_options(0);
    options.gradient_scale = scale;
    Gradients g;
    g.result = accumulate_gradients(session.backend(), session.arenas(), session.model(),
                                    batches_of(session, 0), options);
    for (const Tensor& t : session.model().gradients()) {
      g.of.push_back(values_of(session.backend(), t));
      for (float& v : g.of.back()) v = static_cast<float>(v / scale);
    }
    gradients.push_back(std::move(g));
    update(session.backend(), session.model(), gradients.back().result.grad_norm,
           {.learning_rate = 1e-2, .max_grad_norm = 1e-3, .gradient_scale = scale});
    for (const ops::AdamWTensor& t : session.model().trained()) {
      values.push_back(values_of(session.backend(), t.value));
    }
  }
  EXPECT_TRUE(gradients[0] == gradients[1]);
  const std::size_t n = values.size() / 2;
  for (std::size_t i = 0; i < n; ++i) EXPECT_EQ(values[i], values[n + i]) << i;
}

TEST_F(F16, ASkippedStepUpdatesNothingAndIsLogged) {
  begin("run");
  const Config c = config("run");
  EXPECT_EQ(train(c, to_the_end({.resume = "auto"})), Outcome::finished);
  double scale = kOverflowing;
  std::int64_t skipped = 0;
  std::int64_t updates = 1;
  for (const json& line : metrics_of(at("run"))) {
    if (line.at("step") == 1) continue;
    const int step = line.at("step");
    const bool skip = line.contains("skipped");
    EXPECT_EQ(line.size(), skip ? 12u : 11u);
    EXPECT_EQ(line.at("loss_scale"), scale) << step;
    EXPECT_EQ(line.at("learning_rate"), learning_rate(c.train, updates, 12)) << step;
    EXPECT_TRUE(line.at("loss").is_number());
    EXPECT_EQ(line.at("grad_norm").is_number(), !skip);
    const auto tensors = [&](int s) {
      return bytes_of_file(checkpoint("run", s) / "training.safetensors");
    };
    EXPECT_EQ(tensors(step) == tensors(step - 1), skip) << step;
    if (skip) {
      EXPECT_EQ(line.at("skipped"), true);
      ++skipped;
      scale /= 2;
    } else {
      ++updates;
    }
    EXPECT_EQ(line.at("skipped_steps"), skipped);
    EXPECT_EQ(state("run", step).at("loss_scale").at("scale"), scale);
    EXPECT_EQ(state("run", step).at("loss_scale").at("skipped"), skipped);
  }
  EXPECT_GE(skipped, 1);
  EXPECT_GE(updates, 3) << "the scale did not come down";
  EXPECT_NE(bytes_of_file(at("run") / "log.txt").find("skipped, loss scale 16777216 -> 8388608"),
            std::string::npos);
}

TEST_F(F16, AResumedRunIsTheStraightRunToTheByte) {
  begin("straight");
  for (const char* other : {"stopped1", "stopped3"}) copy("straight", other);
  EXPECT_EQ(train(config("straight"), to_the_end({.resume = "auto"})), Outcome::finished);
  for (const int steps : {1, 3}) {
    const std::string name = "stopped" + std::to_string(steps);
    EXPECT_EQ(train(config(name), stop_after(steps, {.resume = "auto"})), Outcome::stopped);
    EXPECT_EQ(train(config(name), to_the_end({.resume = "auto"})), Outcome::finished);
    for (const char* file :
         {"adapter/adapter_model.safetensors", "checkpoints/latest/training.safetensors",
          "checkpoints/latest/state.json"}) {
      EXPECT_EQ(bytes_of_file(at(name) / file), bytes_of_file(at("straight") / file)) << file;
    }
    EXPECT_EQ(metrics_of(at(name)), metrics_of(at("straight"))) << steps;
  }
}

TEST_F(F16, AScaleThatIsNoPowerOfTwoIsRefused) {
  begin("run");
  json s = state("run", 1);
  s["loss_scale"]["scale"] = 1000;
  std::ofstream(checkpoint("run", 1) / "state.json") << s.dump();
  io::write_manifest(checkpoint("run", 1));
  expect_user_error(ExitCode::model, {"loss_scale", "1000", "power of two"},
                    [&] { train(config("run"), to_the_end({.resume = "auto"})); });
}

TEST_F(F16, TheReportNamesTheModules) {
  const Config c = config("run");
  Session session(c, Session::Purpose::train);
  const std::vector<MicroBatch> batches = batches_of(session, 0);
  PassOptions options = session.pass_options(0);
  const auto report = [&] {
    const StepResult r = accumulate_gradients(session.backend(), session.arenas(), session.model(),
                                              batches, options);
    EXPECT_FALSE(std::isfinite(r.grad_norm));
    std::string first;
    std::vector<std::vector<float>> before;
    for (std::size_t i = session.model().gradients().size(); i-- > 0;) {
      before.push_back(values_of(session.backend(), session.model().gradients()[i]));
      for (const float v : before.back()) {
        if (first.empty() && !std::isfinite(v)) first = session.model().trained_names()[i];
      }
    }
    const Overflow found =
        find_overflow(session.backend(), session.arenas(), session.model(), batches, options);
    EXPECT_EQ(found.gradient, first);
    EXPECT_NE(found.text().find(first), std::string::npos);
    for (std::size_t i = 0; i < before.size(); ++i) {
      const Tensor& g = session.model().gradients()[before.size() - 1 - i];
      const std::vector<float> after = values_of(session.backend(), g);
      EXPECT_EQ(std::memcmp(after.data(), before[i].data(), g.bytes()), 0) << "gradients stay";
    }
    return found;
  };
  options.gradient_scale = 0x1p40;
  EXPECT_EQ(report().forward, "");
  options.gradient_scale = 1;
  for (const auto& m : session.model().modules()) {
    if (m->name.ends_with("language_model.layers.1.mlp.gate_proj")) {
      session.backend().fill(m->b.value, 6e4);
    }
  }
  EXPECT_EQ(report().forward, "model.language_model.layers.1");
  for (const auto& m : session.model().modules()) {
    if (m->name.ends_with("blocks.0.mlp.fc1")) session.backend().fill(m->b.value, 6e4);
  }
  EXPECT_EQ(report().forward, "model.visual.blocks.0");
}

TEST_F(F16, AnOverflowThatNoScaleMendsEndsTheRun) {
  fs::copy(fixture() / "adapter", at("start"));
  const fs::path file = at("start") / "adapter_model.safetensors";
  std::string bytes = bytes_of_file(file);
  const float infinite = std::numeric_limits<float>::infinity();
  std::memcpy(bytes.data() + bytes.size() - sizeof(float), &infinite, sizeof(infinite));
  std::ofstream(file, std::ios::binary) << bytes;
  const Config c = config("run", {"lora.init_from=" + at("start").string(), "train.max_steps=20"});
  // From 2^16 to 1, and once more.
  expect_user_error(ExitCode::diverged,
                    {"step 17", "f16 overflows", "in the forward, first model.visual.blocks.",
                     "bf16", "--resume auto"},
                    [&] { train(c, {}); });
  EXPECT_FALSE(fs::exists(at("run") / "adapter"));
  EXPECT_EQ(metrics_of(at("run")).size(), 16u);
}

}  // namespace
}  // namespace medvqa::train
