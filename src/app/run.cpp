#include <fmt/format.h>

#include <exception>
#include <iostream>
#include <new>

#include "medvqa/app/commands.h"
#include "medvqa/app/printable.h"
#include "medvqa/core/error.h"
#include "medvqa/train/backend_factory.h"

namespace medvqa::app {

namespace {

constexpr const char* kUsage = R"(medvqa: QLoRA fine-tuning of medical vision-language models

Usage: medvqa VERB [OPTIONS]        medvqa-train [OPTIONS] means medvqa train

  train   fine-tune as a configuration says, write a PEFT adapter
  plan    say what a configuration needs: parameters, memory, operations
  init    write a random checkpoint in Hugging Face layout
  export  merge an adapter into its base, or spell it for older libraries
  data    draw a synthetic data set (data synth), look a data set over (data check)
  doctor  show what is built in, the devices, and their measured ceilings

medvqa VERB --help lists a verb's options.
Research and education only; not validated for clinical use.
)";

int dispatch(const std::vector<std::string>& arguments) {
  if (arguments.empty()) {
    throw UserError(
        ExitCode::usage,
        "no verb given, expected train, plan, init, export, data or doctor; see --help");
  }
  const std::string& verb = arguments.front();
  const std::vector<std::string> rest(arguments.begin() + 1, arguments.end());
  if (verb == "train") {
    for (const std::string& a : rest) {
      if (a != "--version") continue;
      std::cout << version_text() << "\n";
      return 0;
    }
    return command_train(rest);
  }
  if (verb == "plan") return command_plan(rest);
  if (verb == "init") return command_init(rest);
  if (verb == "export") return command_export(rest);
  if (verb == "data") return command_data(rest);
  if (verb == "doctor") return command_doctor(rest);
  if (verb == "--help" || verb == "-h" || verb == "help") {
    std::cout << kUsage;
    return 0;
  }
  if (verb == "--version") {
    std::cout << version_text() << "\n";
    return 0;
  }
  throw UserError(ExitCode::usage,
                  fmt::format("unknown verb \"{}\", expected train, plan, init, export, data "
                              "or doctor; see --help",
                              verb));
}

int report(ExitCode code, const std::string& message) {
  std::cerr << "medvqa: " << printable(message) << "\n";
  return static_cast<int>(code);
}

}  // namespace

std::string version_text() {
  return fmt::format("medvqa {} ({})", MEDVQA_VERSION, fmt::join(train::built_in(), "; "));
}

int run(const std::string& program, std::vector<std::string> arguments) {
  const std::string link = "medvqa-train";
  const bool as_train = program.size() >= link.size() &&
                        program.compare(program.size() - link.size(), link.size(), link) == 0;
  if (as_train) arguments.insert(arguments.begin(), "train");
  try {
    return dispatch(arguments);
  } catch (const UserError& e) {
    return report(e.code(), e.what());
  } catch (const DeviceError& e) {
    return report(ExitCode::device, e.what());
  } catch (const std::bad_alloc&) {
    return report(ExitCode::memory,
                  "the system has no memory left; lower train.batch_size or "
                  "data.image.max_pixels");
  } catch (const std::exception& e) {
    return report(ExitCode::internal,
                  std::string("internal error, please report it with the command: ") + e.what());
  }
}

}  // namespace medvqa::app
