// Random checkpoints in Hugging Face layout: for tests, smoke runs and benchmarks of real shapes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace medvqa::train {

struct RandomCheckpoint {
  nlohmann::json config;  // config.json in either spelling
  std::filesystem::path out;
  std::uint64_t seed = 0;
  bool nf4 = false;  // the blocks' linears as bitsandbytes stores them, nested
  // tokenizer and processor files are copied from here; without it a byte-level tokenizer with the
  // family's special tokens is made.
  std::optional<std::filesystem::path> tokenizer;
};

// Linears N(0, 1 / fan_in), embeddings N(0, 1), norms 1 + N(0, 0.1^2), biases and gates
// N(0, 0.1^2): a frozen base drawn narrower does not let LoRA learn. bf16, counter-based: the same
// seed gives the same bytes. `out` appears whole or not at all and must not exist or be empty.
void write_random_checkpoint(const RandomCheckpoint& request);

// Names of built-in configurations, and config.json of one; UserError(ExitCode::usage) lists them.
std::vector<std::string> preset_names();
nlohmann::json preset_config(const std::string& name);

// The token ids a byte-level tokenizer gives the family's special tokens: those config.json names,
// those of the published vocabulary if it is large enough, else the first free ones after the
// bytes.
nlohmann::json byte_level_tokenizer(const nlohmann::json& config);
nlohmann::json tokenizer_settings(const nlohmann::json& config);
nlohmann::json processor_settings(const nlohmann::json& config);

}  // namespace medvqa::train
