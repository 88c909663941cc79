#include "medvqa/app/arguments.h"

#include <fmt/format.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>

#include "medvqa/app/commands.h"

// The process environment; POSIX declares no header for it.
extern char** environ;  // NOLINT(readability-identifier-naming)

namespace medvqa::app {

namespace {

std::map<std::string, std::string> process_environment() {
  std::map<std::string, std::string> variables;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text(*entry);
    const std::size_t equals = text.find('=');
    if (equals != std::string::npos) variables[text.substr(0, equals)] = text.substr(equals + 1);
  }
  return variables;
}

}  // namespace

void ConfigArguments::add_to(CLI::App& parser) {
  parser.add_option("--config", file, "configuration file, or the name of a shipped one")
      ->required();
  parser.add_option("--set", overrides, "KEY=JSON, wins over the file; may be repeated")
      ->allow_extra_args(false);
}

train::Config ConfigArguments::load() const {
  return train::load_config(find_config(file), overrides, process_environment());
}

void LogArguments::add_to(CLI::App& parser) {
  parser.add_option("--log-level", level, "debug, info, warn or error");
  parser.add_flag("--quiet", quiet, "only warnings and errors");
  parser.add_flag("--no-color", no_color, "no colours on a terminal");
}

void LogArguments::apply() const {
  const char* no_color_variable = std::getenv("NO_COLOR");
  const bool plain = no_color || isatty(STDERR_FILENO) == 0 ||
                     (no_color_variable != nullptr && *no_color_variable != '\0');
  const auto mode = plain ? spdlog::color_mode::never : spdlog::color_mode::automatic;
  auto sink = std::make_shared<spdlog::sinks::stderr_color_sink_mt>(mode);
  spdlog::set_default_logger(std::make_shared<spdlog::logger>("medvqa", sink));
  spdlog::set_pattern("%H:%M:%S %^%l%$ %v");
  const std::vector<std::string> levels{"debug", "info", "warn", "error"};
  if (std::find(levels.begin(), levels.end(), level) == levels.end()) {
    throw UserError(ExitCode::usage,
                    fmt::format("--log-level {}: expected debug, info, warn or error", level));
  }
  const auto wanted = quiet ? spdlog::level::warn : spdlog::level::from_str(level);
  sink->set_level(wanted);
  // What the terminal does not show may still go to a run's log.txt.
  spdlog::set_level(std::min(wanted, spdlog::level::info));
}

train::BarStyle LogArguments::bar() const {
  const bool silent = quiet || level == "warn" || level == "error";
  return train::terminal_style(silent, no_color);
}

bool parse(CLI::App& parser, const std::vector<std::string>& arguments) {
  // CLI11 takes them last first.
  std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());
  try {
    parser.parse(reversed);
  } catch (const CLI::CallForHelp&) {
    std::cout << parser.help();
    return false;
  } catch (const CLI::ParseError& e) {
    throw UserError(ExitCode::usage,
                    fmt::format("{}; see medvqa {} --help", e.what(), parser.get_name()));
  }
  return true;
}

}  // namespace medvqa::app
