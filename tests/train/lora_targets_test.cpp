#include "medvqa/train/lora_targets.h"

#include <gtest/gtest.h>

#include <chrono>

#include "tests/train/train_test_support.h"

namespace medvqa::train {
namespace {

json fixture_model() {
  return open_model(load(TempFolder(), fixture_config(TempFolder())), false).config;
}

void expect_refused(const std::string& pattern, const std::vector<std::string>& parts) {
  expect_user_error(ExitCode::config, parts, [&] { LoraTargets(pattern).check(fixture_model()); });
}

TEST(LoraTargets, MatchWholeNames) {
  const LoraTargets targets(R"(model\.visual\.(blocks\.\d+\.attn\.qkv|merger\.mlp\.[02]))");
  EXPECT_TRUE(targets.matches("model.visual.blocks.31.attn.qkv"));
  EXPECT_TRUE(targets.matches("model.visual.merger.mlp.2"));
  EXPECT_FALSE(targets.matches("model.visual.blocks.31.attn.qkv.x"));
  EXPECT_FALSE(targets.matches("x.model.visual.merger.mlp.2"));
  EXPECT_NO_THROW(targets.check(fixture_model()));
}

// PEFT would make a Conv LoRA of the patch embedding; here it is a matrix like any other, and the
// adapter would have a shape that PEFT refuses.
TEST(LoraTargets, TheConvolutionTheEmbeddingAndTheHeadAreRefused) {
  expect_refused(R"(.*patch_embed.*)", {"lora.targets", "model.visual.patch_embed.proj"});
  expect_refused(R"(.*\.proj)", {"lora.targets", "model.visual.patch_embed.proj"});
  expect_refused(R"(.*embed_tokens|.*q_proj)", {"lora.targets", "embed_tokens"});
  expect_refused("lm_head|.*q_proj", {"lora.targets", "lm_head"});
  EXPECT_NO_THROW(LoraTargets(R"((?!.*patch_embed).*\.proj)").check(fixture_model()));
}

TEST(LoraTargets, NothingMatchedIsAnErrorThatShowsAName) {
  expect_refused("q_proj", {"lora.targets", "q_proj", "whole name", "model.visual.blocks.0"});
}

TEST(LoraTargets, WhatIsNoPatternIsRefused) {
  expect_refused("((", {"lora.targets", "(("});
  expect_refused(R"((a)\1)", {"lora.targets"});
}

// Patterns that exhaust the stack or take exponential time where a matcher backtracks.
TEST(LoraTargets, PathologicalPatternsEndInTime) {
  expect_refused(std::string(100000, '('), {"lora.targets", "100000 characters", "2000"});
  expect_refused(std::string(2000, '('), {"lora.targets"});
  expect_refused(std::string(1000, '(') + std::string(1000, ')'), {"lora.targets"});
  expect_refused(std::string(1999, 'a') + "|", {"lora.targets"});
  const auto begin = std::chrono::steady_clock::now();
  expect_refused("(.*)*(.*)*(.*)*!", {"lora.targets", "none"});
  expect_refused("((([a-z.]+)+)+)+!", {"lora.targets", "none"});
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
}

}  // namespace
}  // namespace medvqa::train
