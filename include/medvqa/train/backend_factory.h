// The one place that knows which devices are built in.
#pragma once

#include <memory>
#include <string>

#include "medvqa/ops/backend.h"

namespace medvqa::train {

// "auto", "cpu", "cuda" or "cuda:N". UserError(ExitCode::device) for one that is not there,
// UserError(ExitCode::config) for another word.
std::unique_ptr<ops::Backend> make_backend(const std::string& device);

}  // namespace medvqa::train
