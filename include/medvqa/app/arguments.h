// What the verbs' command lines share.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "medvqa/train/config.h"
#include "medvqa/train/progress.h"

namespace medvqa::app {

struct ConfigArguments {
  std::string file;
  std::vector<std::string> overrides;

  // --config F and --set a.b=JSON.
  void add_to(CLI::App& parser);
  train::Config load() const;
};

struct LogArguments {
  std::string level = "info";
  bool quiet = false;
  bool no_color = false;

  void add_to(CLI::App& parser);
  // Sends the log to stderr as asked.
  void apply() const;
  // How progress can be shown.
  train::BarStyle bar() const;
};

// Parses, and turns --help into exit 0 and a wrong command line into UserError(ExitCode::usage).
// Returns false if there is nothing left to do.
bool parse(CLI::App& parser, const std::vector<std::string>& arguments);

}  // namespace medvqa::app
