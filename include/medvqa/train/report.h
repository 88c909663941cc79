// What a run says about itself before its first step, and where that is kept.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "medvqa/train/session.h"

namespace medvqa::train {

// The start-up report, a line each: device, model, memory, data, one sample, steps.
std::vector<std::string> start_report(const Session& session);

// What data.too_long dropped, a line for the training and one for the validation samples; nothing
// if all were kept.
std::vector<std::string> too_long_report(const DataInputs& data);

// After the first optimizer step, what the device says it had free before the arenas and has now.
// Arenas do not grow: beyond them it gave what libraries load with the first products and
// attention. scripts/gpu_check.sh holds the plan against it. Empty for a device without memory of
// its own.
std::string device_memory_report(const Session& session);

// Until it ends, everything the program logs goes to log.txt in the run's folder as well, whatever
// the terminal shows. UserError(ExitCode::io) if the file cannot be written.
class RunLog {
 public:
  explicit RunLog(const std::filesystem::path& run);
  ~RunLog();
  RunLog(const RunLog&) = delete;
  RunLog& operator=(const RunLog&) = delete;

  // To the file alone.
  void note(const std::string& line);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace medvqa::train
