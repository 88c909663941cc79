// A run's configuration: defaults, then the file, then MEDVQA__SECTION__KEY from the environment,
// then --set a.b=JSON.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "medvqa/autograd/segment_tape.h"
#include "medvqa/data/source.h"

namespace medvqa::train {

struct ModelOptions {
  std::string path;
  std::string quantization;  // auto, nf4, none
  bool double_quant = true;
  std::string compute;  // auto, f32, bf16, f16
  std::string vision_features;
};

struct LoraConfig {
  std::int64_t r = 16;
  double alpha = 16;
  double dropout = 0;
  bool rslora = false;
  bool vision = true, language = true, attention = true, mlp = true;
  std::optional<std::string> targets;
  std::optional<std::string> init_from;
  double scaling() const;
};

struct DataConfig {
  std::vector<data::Source> train;
  std::vector<data::Source> validation;       // if given as sources
  std::optional<double> validation_fraction;  // if held out of train
  data::PromptOptions prompt;
  std::int64_t max_length = 2048;
  bool drop_too_long = false;
  std::optional<std::int64_t> min_pixels, max_pixels;
  std::optional<data::Classes> classes;  // of task classification
  bool packing = true;
  bool shuffle = true;
  bool group_by_length = false;
  int threads = 1;
};

// Whether the embedding table and the recompute points are kept in host memory.
enum class Offload : std::uint8_t { automatic, none, all };

enum class Schedule : std::uint8_t { linear, cosine, constant };

struct TrainConfig {
  std::int64_t batch_size = 2, gradient_accumulation = 4, epochs = 1;
  std::optional<std::int64_t> max_steps;
  double learning_rate = 2e-4;
  Schedule schedule = Schedule::linear;
  std::int64_t warmup_steps = 5;
  double weight_decay = 0.01, max_grad_norm = 1.0;
  bool eight_bit = true;
  std::optional<autograd::Recompute> recompute;  // none: auto
  Offload offload = Offload::automatic;
  std::uint64_t seed = 3407;
  std::int64_t log_every = 1, keep = 2;
  std::optional<std::int64_t> eval_every, save_every;
};

struct Config {
  std::string task, device;
  ModelOptions model;
  LoraConfig lora;
  DataConfig data;
  TrainConfig train;
  std::filesystem::path output;
  nlohmann::ordered_json resolved;  // every key with the value in force, classes as written
};

// `overrides` are "a.b=JSON" (a bare word counts as a string). `environment` is a copy of the
// process environment. UserError(ExitCode::config, or usage for a malformed override) names file,
// key, value, what was expected, and the closest known key for an unknown one.
Config load_config(const std::filesystem::path& file, const std::vector<std::string>& overrides,
                   const std::map<std::string, std::string>& environment);

}  // namespace medvqa::train
