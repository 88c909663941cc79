#include <CLI/CLI.hpp>
#include <iostream>
#include <nlohmann/json.hpp>

#include "medvqa/app/arguments.h"
#include "medvqa/app/commands.h"
#include "medvqa/train/plan.h"

namespace medvqa::app {

int command_plan(const std::vector<std::string>& arguments) {
  CLI::App parser(
      "Says what a configuration needs: parameters, memory, operations. config.json of "
      "the model is enough; no weights, tokenizer or data are read.",
      "plan");
  ConfigArguments config_arguments;
  LogArguments log;
  bool as_json = false;
  std::string device;
  config_arguments.add_to(parser);
  parser.add_option("--device", device,
                    "t4, a100-40, a100-80, h100, h200 or bytes; default: this machine");
  parser.add_flag("--json", as_json, "print JSON");
  log.add_to(parser);
  parser.footer("Example:\n  medvqa plan --config run.json --device t4");
  if (!parse(parser, arguments)) return 0;
  log.apply();
  const train::Config config = config_arguments.load();
  const train::Plan plan = train::make_plan(config, device);
  if (as_json) {
    std::cout << train::to_json(plan).dump(2) << "\n";
    return 0;
  }
  std::cout << train::to_table(plan);
  if (plan.fits()) return 0;
  std::cout << "changes that would make it fit:\n";
  for (const std::string& change : train::changes_that_fit(config, device)) {
    std::cout << "  " << change << "\n";
  }
  return 0;
}

}  // namespace medvqa::app
