// The configuration's table in the forms that editors, validators and readers take.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace medvqa::train {

// JSON Schema, draft 2020-12, of a configuration file. "$schema" is allowed as a key of the file.
nlohmann::json config_schema();

// The keys as a page of Markdown.
std::string config_reference();

// The keys as lines of --help.
std::string config_help();

}  // namespace medvqa::train
