// What a run may not change between a checkpoint and going on from it.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "medvqa/train/run_inputs.h"

namespace medvqa::train {

// Whether a configuration key may have another value when a run goes on: it decides where or when
// something is computed or written, not what.
bool may_change(const std::string& key);

// {"steps": S, "keys": {KEY: {"value": as configured, "sha256": of what it names}}} of every key
// that may not change; only keys that name files have the hash, and their paths may change as long
// as it stays. Samples are hashed as prepared (tokens, labels, sizes of image files), a model by
// its configuration and pieces spread over its weight files.
nlohmann::json fingerprint_of(const Config& config, const ModelInputs& model,
                              const DataInputs& data, std::int64_t steps);

// Compares a checkpoint's state.json with the run that is to go on from it. UserError names what
// differs, saved and found, and what to do: ExitCode::config for the configuration, ExitCode::data
// or ExitCode::model if only files behind it changed. With `allow_changes` that becomes a warning.
// Fewer steps than are done are an error always; another number of steps, with a schedule that
// follows it, is a warning.
void check_fingerprint(const std::filesystem::path& checkpoint, const nlohmann::json& now,
                       bool allow_changes);

}  // namespace medvqa::train
