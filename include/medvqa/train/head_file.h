// A classification's trained head beside its adapter: head.weight f32 [classes, C], and in the
// metadata JSON lists, one entry a class in the order of the rows: "labels", "texts", "token_ids".
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "medvqa/data/source.h"

namespace medvqa::train {

extern const char* const kHeadFile;  // its name

// `weight` has classes x channels values.
void write_head(const std::filesystem::path& folder, const data::Classes& classes,
                std::span<const std::int32_t> tokens, std::span<const float> weight);

// The values of the folder's head. UserError(ExitCode::model) if it has other tokens, in another
// order, or other channels.
std::vector<float> read_head(const std::filesystem::path& folder,
                             std::span<const std::int32_t> tokens, std::int64_t channels);

}  // namespace medvqa::train
