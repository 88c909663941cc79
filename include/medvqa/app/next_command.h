// What `medvqa train` says after the work is done.
#pragma once

#include <string>

#include "medvqa/app/arguments.h"
#include "medvqa/train/trainer.h"

namespace medvqa::app {

// A word of a command line, as a shell takes it.
std::string quoted(const std::string& word);

// Where the results lie and the next command to run, on stderr.
void report_dry_run(const ConfigArguments& arguments);
void report_end(const ConfigArguments& arguments, const train::Config& config,
                train::Outcome outcome);

}  // namespace medvqa::app
