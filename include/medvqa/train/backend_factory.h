// The one place that knows which devices are built in.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "medvqa/ops/backend.h"

namespace medvqa::train {

// "auto" (the first GPU if there is one, else the CPU), "cpu", "cuda" (the first) or "cuda:N".
// UserError(ExitCode::device) for one that is not there or not built in, or where the driver is too
// old; UserError(ExitCode::config) for another word.
std::unique_ptr<ops::Backend> make_backend(const std::string& device);

// What make_backend takes on this machine, all but "auto". UserError(ExitCode::device) as above.
std::vector<std::string> available_devices();

// Of a CUDA device, as "7.5"; empty for the CPU. UserError as make_backend.
std::string compute_capability(const std::string& device);

// The devices that are built in, each with its libraries and their versions: "cpu: ...", "cuda:
// ...".
std::vector<std::string> built_in();

}  // namespace medvqa::train
