#include "medvqa/core/error.h"

#include <fmt/format.h>

namespace medvqa {

void fail_check(const char* file, int line, const char* condition, const std::string& message) {
  throw InternalError(fmt::format("{}:{}: {} (check failed: {})", file, line, message, condition));
}

}  // namespace medvqa
