#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <nlohmann/json.hpp>

#include "medvqa/app/arguments.h"
#include "medvqa/app/commands.h"
#include "medvqa/train/data_check.h"

namespace medvqa::app {

int command_data_check(const std::vector<std::string>& arguments) {
  CLI::App parser(
      "Reads a configuration's data as a run would: counts, bad rows, lengths, leaks. Exit code 4 "
      "if rows are bad. The model's folder needs config.json and tokenizer files, no weights.",
      "data check");
  ConfigArguments config_arguments;
  LogArguments log;
  bool as_json = false, headers_only = false;
  config_arguments.add_to(parser);
  parser.add_flag("--json", as_json, "print JSON");
  parser.add_flag("--headers-only", headers_only, "of images read no more than the header");
  log.add_to(parser);
  parser.footer("Example:\n  medvqa data check --config run.json");
  if (!parse(parser, arguments)) return 0;
  log.apply();
  const train::Config config = config_arguments.load();
  const train::DataCheck check = train::check_data(config, !headers_only);
  std::cout << (as_json ? train::to_json(check).dump(2) + "\n" : train::to_text(check));
  if (check.bad.empty()) return 0;
  throw UserError(ExitCode::data, fmt::format("{} bad rows, the first: {}; mend or remove them",
                                              check.bad.size(), check.bad.front()));
}

}  // namespace medvqa::app
