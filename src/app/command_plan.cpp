#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <nlohmann/json.hpp>

#include "medvqa/app/arguments.h"
#include "medvqa/app/commands.h"
#include "medvqa/train/backend_factory.h"
#include "medvqa/train/memory_plan.h"

namespace medvqa::app {

int command_plan(const std::vector<std::string>& arguments) {
  CLI::App parser("Counts parameters of a configuration; config.json alone is enough.", "plan");
  ConfigArguments config_arguments;
  LogArguments log;
  bool as_json = false;
  config_arguments.add_to(parser);
  parser.add_flag("--json", as_json, "print JSON");
  log.add_to(parser);
  if (!parse(parser, arguments)) return 0;
  log.apply();
  const train::Config config = config_arguments.load();
  const train::ModelInputs model = train::open_model(config, false);
  const auto backend = train::make_backend(config.device);
  const train::MemoryPlan plan =
      train::plan_memory(backend->traits(), model, autograd::Recompute::all, {});
  const std::int64_t all = plan.parameters.frozen + plan.parameters.trainable;
  if (as_json) {
    const nlohmann::json j{{"parameters", plan.parameters.frozen},
                           {"trainable_parameters", plan.parameters.trainable}};
    std::cout << j.dump(2) << "\n";
  } else {
    std::cout << fmt::format("parameters            {:>16}\n", plan.parameters.frozen)
              << fmt::format("trainable parameters  {:>16}  ({:.3f} % of all)\n",
                             plan.parameters.trainable,
                             100.0 * static_cast<double>(plan.parameters.trainable) /
                                 static_cast<double>(all));
  }
  return 0;
}

}  // namespace medvqa::app
