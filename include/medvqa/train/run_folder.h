// The folder of a run: configuration, metrics, checkpoints. Nothing half-written is ever seen.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "medvqa/train/adapted_model.h"
#include "medvqa/train/loss_scale.h"

namespace medvqa::train {

// What is done with a folder that already holds something.
struct FolderRules {
  std::string resume = "none";  // auto, none, or a checkpoint's path
  bool overwrite = false;
  bool allow_changes = false;  // resume a run whose fingerprint is another
};

// Where a run continues.
struct Progress {
  std::int64_t step = 0;  // optimizer steps done
  std::optional<double> best_loss;
  std::int64_t best_step = 0;
  std::int64_t skipped = 0;                            // of these steps, updated nothing
  std::optional<LossScale> loss_scale = std::nullopt;  // f16 only
  std::optional<std::int64_t> samples_per_pass = std::nullopt;
  // Updates done: what the optimizer and the schedule of the learning rate count.
  std::int64_t updates() const { return step - skipped; }
};

class RunFolder {
 public:
  // Makes the folder, and removes what a killed process left half-written in it. `fingerprint` goes
  // into every checkpoint. UserError(ExitCode::config) if the folder is not empty and the rules do
  // not say what to do; nothing is touched then. UserError(ExitCode::io) if it cannot be written.
  RunFolder(std::filesystem::path path, const FolderRules& rules,
            const nlohmann::ordered_json& config,
            nlohmann::json fingerprint = nlohmann::json::object());

  // What the constructor refuses because of what is there; looks only. The checkpoint to go on
  // from, if the rules find one.
  static std::optional<std::filesystem::path> check(const std::filesystem::path& path,
                                                    const FolderRules& rules);

  const std::filesystem::path& path() const { return path_; }
  // The checkpoint to continue from, if the rules found one.
  const std::optional<std::filesystem::path>& checkpoint() const { return checkpoint_; }

  // Appends one line to metrics.jsonl. Lines beyond `step` of an earlier run are cut off first.
  void keep_metrics_until(std::int64_t step);
  void log(const nlohmann::json& line);

  // Writes checkpoints/step-N whole, moves `latest` (and `best`) to it, then prunes to `keep`
  // newest ones beside the best.
  void save_checkpoint(ops::Backend& backend, const AdaptedModel& model, const Progress& progress,
                       std::int64_t keep);

 private:
  void prune(std::int64_t keep, std::int64_t step) const;
  void point(const std::string& link, const std::string& target) const;

  std::filesystem::path path_;
  std::optional<std::filesystem::path> checkpoint_;
  nlohmann::json fingerprint_;
  std::ofstream metrics_;
};

// A folder with something in it, or something that is no folder. UserError(ExitCode::io) if what
// is there cannot be looked at.
bool is_used(const std::filesystem::path& path);

// state.json of a checkpoint. UserError(ExitCode::model) if it is missing or no JSON.
nlohmann::json read_state(const std::filesystem::path& checkpoint);

// Of the run that saved it; nothing in checkpoints of before there was a choice.
std::optional<std::int64_t> samples_per_pass_of(const std::filesystem::path& checkpoint);

// Reads adapter, optimizer state and progress. UserError(ExitCode::model) if a file is not the one
// that was written, by its SHA-256, or if the checkpoint belongs to another model.
Progress restore_checkpoint(const std::filesystem::path& checkpoint, ops::Backend& backend,
                            AdaptedModel& model);

}  // namespace medvqa::train
