// The tensors of one optimizer step, for comparison with other programs. Names, types and shapes
// are those of the project's configuration page.
#pragma once

#include <filesystem>

#include "medvqa/train/config.h"

namespace medvqa::train {

// Loss and gradients of the first optimizer step's samples; nothing is updated, and FILE is the
// only thing written.
void write_probe(const Config& config, const std::filesystem::path& file);

// The inputs of every training sample in file order; no weights are loaded.
void write_probe_inputs(const Config& config, const std::filesystem::path& file);

}  // namespace medvqa::train
