#include "medvqa/app/commands.h"

#include "medvqa/core/error.h"

namespace medvqa::app {

int command_init(const std::vector<std::string>&) {
  throw UserError(ExitCode::usage, "init: pending");
}

}  // namespace medvqa::app
