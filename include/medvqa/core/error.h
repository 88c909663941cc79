// The three kinds of failure. Nothing below `app` catches them except to add context.
#pragma once

#include <stdexcept>
#include <string>

namespace medvqa {

// What the process returns; the README lists them for users.
enum class ExitCode : int {
  ok = 0,
  internal = 1,
  usage = 2,
  config = 3,
  data = 4,
  model = 5,
  memory = 6,
  diverged = 7,
  io = 8,
  device = 9,
  requeue = 75,
};

// Something the user can mend: config, data, weights, files, memory. The message is one line that
// names the thing, what was found, what was expected and what to do.
class UserError : public std::runtime_error {
 public:
  UserError(ExitCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

// A device or one of its libraries failed; the message carries expression, op, file and line.
class DeviceError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A broken contract: a bug in this program, never the user's fault.
class InternalError : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

[[noreturn]] void fail_check(const char* file, int line, const char* condition,
                             const std::string& message);

}  // namespace medvqa

// Checks a contract, in every build. The message is evaluated only on failure.
#define MEDVQA_CHECK(condition, message)                               \
  do {                                                                 \
    if (!(condition)) [[unlikely]]                                     \
      ::medvqa::fail_check(__FILE__, __LINE__, #condition, (message)); \
  } while (false)
