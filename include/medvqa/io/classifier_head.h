// The trimmed head of a classifier, in head.safetensors beside its adapter.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "medvqa/io/safetensors.h"

namespace medvqa::io {

inline constexpr const char* kHeadFile = "head.safetensors";

// head.weight, f32 [classes, C]; metadata `token_ids` and `labels`, JSON lists with an entry a row:
// the vocabulary's id of the row, and what it stands for.
struct ClassifierHead {
  SafetensorsFile file;
  nn::HostTensor weight;
  std::vector<std::int64_t> token_ids;
  std::vector<std::string> labels;
};

// Nothing if the folder has no such file. UserError(ExitCode::model) if it is not as above.
std::optional<ClassifierHead> read_classifier_head(const std::filesystem::path& folder);

// `weight` has a row for every label; `texts` are what the tokens stand for.
void write_classifier_head(const std::filesystem::path& folder,
                           const std::vector<std::string>& labels,
                           const std::vector<std::string>& texts,
                           std::span<const std::int32_t> token_ids, std::span<const float> weight);

}  // namespace medvqa::io
