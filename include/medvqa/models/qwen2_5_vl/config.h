// The numbers of a Qwen2.5-VL model: Qwen2-VL's, and windows. Bai et al. 2025, section 2.1.
#pragma once

#include <vector>

#include "medvqa/models/qwen2_vl/config.h"

namespace medvqa::models::qwen2_5_vl {

struct Config : qwen2_vl::Config {
  std::int64_t window = 4;     // merged patches on a window's side
  std::vector<bool> windowed;  // of every vision block; the others see the whole frame
};

// From config.json in its nested form. UserError(ExitCode::model) names the key, what was found
// and what was expected.
Config read_config(const nlohmann::json& config);

}  // namespace medvqa::models::qwen2_5_vl
