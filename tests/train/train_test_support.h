// What the tests of the train module share: the fixture's configuration, sessions, downloads.
#pragma once

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "medvqa/train/session.h"
#include "medvqa/train/trainer.h"
#include "tests/io/io_test_support.h"
#include "tests/support/fixtures.h"

namespace medvqa::train {

namespace fs = std::filesystem;
using io::expect_user_error;
using io::TempFolder;
using nlohmann::json;

inline fs::path fixture() {
  return fixtures_folder() / "qwen2_vl_tiny";
}

// The committed tiny model with its adapter, f32, four optimizer steps of 2 x 2 of its six samples.
inline json fixture_config(const TempFolder& folder) {
  const json dataset{{"format", "jsonl"}, {"path", (fixture() / "dataset.jsonl").string()}};
  json c;
  c["device"] = "cpu";
  c["model"] = {{"path", (fixture() / "checkpoint").string()}, {"compute", "f32"}};
  c["lora"] = {{"r", 16}, {"alpha", 16}, {"init_from", (fixture() / "adapter").string()}};
  c["data"]["train"] = json::array({dataset});
  c["data"]["validation"] = nullptr;
  c["train"] = {{"batch_size", 2},       {"gradient_accumulation", 2}, {"max_steps", 4},
                {"learning_rate", 2e-3}, {"warmup_steps", 2},          {"recompute", "none"}};
  c["output"] = (folder.path() / "run").string();
  return c;
}

inline json validation_like_train() {
  return json::array({{{"format", "jsonl"}, {"path", (fixture() / "dataset.jsonl").string()}}});
}

inline Config load(const TempFolder& folder, const nlohmann::ordered_json& config,
                   const std::vector<std::string>& overrides = {}) {
  return load_config(folder.write("config.json", config.dump()), overrides, {});
}

inline std::vector<float> values_of(ops::Backend& backend, const Tensor& t) {
  std::vector<float> values(static_cast<std::size_t>(t.elements()));
  backend.download(t, values.data(), values.size() * sizeof(float));
  return values;
}

// Loss, and gradients of every adapter matrix in order, of one optimizer step.
struct Gradients {
  StepResult result;
  std::vector<std::vector<float>> of;
  bool operator==(const Gradients& other) const {
    return result.loss == other.result.loss && result.grad_norm == other.result.grad_norm &&
           of == other.of;
  }
};

inline std::vector<MicroBatch> batches_of(const Session& session, std::size_t step) {
  const auto prefetcher = session.batches(step);
  return session.take(*prefetcher, session.steps()[step]);
}

inline Gradients gradients_of(Session& session, std::size_t step = 0) {
  Gradients g;
  g.result = accumulate_gradients(session.backend(), session.arenas(), session.model(),
                                  batches_of(session, step),
                                  session.pass_options(static_cast<std::int64_t>(step)));
  for (const Tensor& t : session.model().gradients()) {
    g.of.push_back(values_of(session.backend(), t));
  }
  return g;
}

// What two f32 orders of summation may differ by: ten times the reference stack's own rounding
// against its f64 (tests/fixtures/qwen2_vl_tiny/recipe.json), as the project's parity bounds.
inline constexpr double kLossTolerance = 5e-6;
inline constexpr double kGradientTolerance = 2e-5;

inline double relative_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double d = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    difference += d * d;
    norm += static_cast<double>(b[i]) * static_cast<double>(b[i]);
  }
  return std::sqrt(difference / std::max(norm, 1e-300));
}

inline void expect_close(const Gradients& a, const Gradients& b) {
  EXPECT_NEAR(a.result.loss, b.result.loss, kLossTolerance * b.result.loss);
  EXPECT_EQ(a.result.label_tokens, b.result.label_tokens);
  EXPECT_EQ(a.result.tokens, b.result.tokens);
  EXPECT_EQ(a.result.samples, b.result.samples);
  ASSERT_EQ(a.of.size(), b.of.size());
  for (std::size_t i = 0; i < a.of.size(); ++i) {
    ASSERT_EQ(a.of[i].size(), b.of[i].size());
    EXPECT_LE(relative_difference(a.of[i], b.of[i]), kGradientTolerance) << "gradient " << i;
  }
}

inline std::string bytes_of_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in.good()) << path;
  return {std::istreambuf_iterator<char>(in), {}};
}

// metrics.jsonl without the wall times, the only thing two equal runs differ in.
inline std::vector<json> metrics_of(const fs::path& run) {
  std::vector<json> lines;
  std::ifstream in(run / "metrics.jsonl");
  for (std::string line; std::getline(in, line);) {
    lines.push_back(json::parse(line));
    lines.back().erase("seconds");
  }
  return lines;
}

// Asks to stop once `steps` optimizer steps are done.
inline TrainerOptions stop_after(int steps, const FolderRules& rules = {}) {
  return {.folder = rules,
          .stop_requested = [steps, seen = 0]() mutable { return seen++ >= steps; }};
}

inline TrainerOptions to_the_end(const FolderRules& rules) {
  return {.folder = rules, .stop_requested = {}};
}

}  // namespace medvqa::train
