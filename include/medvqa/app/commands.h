// The verbs of the command line. Each parses its own arguments and returns the exit code; errors
// leave as exceptions, which only run() catches.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace medvqa::app {

// Runs `medvqa ARGUMENTS...`; `program` is argv[0] (a name ending in medvqa-train means the verb
// train). Never throws: every error is printed as one line on stderr and becomes an exit code.
int run(const std::string& program, std::vector<std::string> arguments);

int command_train(const std::vector<std::string>& arguments);
int command_plan(const std::vector<std::string>& arguments);
int command_init(const std::vector<std::string>& arguments);
int command_export(const std::vector<std::string>& arguments);
// `data` takes a word of its own: synth or check.
int command_data(const std::vector<std::string>& arguments);
// Devices and libraries of this machine and this program.
int command_doctor(const std::vector<std::string>& arguments);
int command_data_check(const std::vector<std::string>& arguments);

// A path as given, or a bare name among the shipped configurations. UserError(ExitCode::config)
// lists where it was looked for.
std::filesystem::path find_config(const std::string& name);

// Text of --version.
std::string version_text();

}  // namespace medvqa::app
