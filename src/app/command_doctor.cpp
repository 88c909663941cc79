#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <nlohmann/json.hpp>
#include <set>

#include "medvqa/app/arguments.h"
#include "medvqa/app/commands.h"
#include "medvqa/train/available_memory.h"
#include "medvqa/train/backend_factory.h"
#include "medvqa/train/ceilings.h"

namespace medvqa::app {

namespace {

// One device as `doctor` describes it.
nlohmann::ordered_json examine(const std::string& name, bool measure) {
  const auto backend = train::make_backend(name);
  const ops::DeviceTraits& traits = backend->traits();
  nlohmann::ordered_json d{{"device", name},
                           {"name", traits.name},
                           {"memory_available", train::available_memory(*backend)},
                           {"compute", medvqa::name_of(traits.compute)}};
  const std::string capability = train::compute_capability(name);
  if (!capability.empty()) d["compute_capability"] = capability;
  if (!backend->free_memory()) d["threads"] = traits.threads;
  if (!measure) return d;
  d["copy_bytes_per_second"] = train::measure_copy(*backend);
  for (const DType type : std::set{DType::f32, traits.compute}) {
    d["gemm_flops_per_second"][std::string(medvqa::name_of(type))] =
        train::measure_product(*backend, type);
  }
  return d;
}

// A device that is here and cannot be used, and why.
nlohmann::ordered_json unusable(const std::string& name, const std::exception& error) {
  return {{"device", name}, {"problem", error.what()}};
}

// The CPU, and what else this machine has: one broken device hides no other.
nlohmann::ordered_json examine_all(bool measure) {
  nlohmann::ordered_json devices = nlohmann::ordered_json::array(), unlisted;
  std::vector<std::string> names{"cpu"};
  try {
    names = train::available_devices();
  } catch (const UserError& error) {  // a driver that is too old
    unlisted = unusable("cuda", error);
  }
  for (const std::string& name : names) {
    try {
      devices.push_back(examine(name, measure));
    } catch (const UserError& error) {
      devices.push_back(unusable(name, error));
    } catch (const DeviceError& error) {
      devices.push_back(unusable(name, error));
    }
  }
  if (!unlisted.is_null()) devices.push_back(unlisted);
  return devices;
}

std::string to_text(const nlohmann::ordered_json& d) {
  if (d.contains("problem")) {
    return fmt::format("{:<8} not usable: {}\n", d.at("device").get<std::string>(),
                       d.at("problem").get<std::string>());
  }
  const std::string capability =
      d.contains("compute_capability")
          ? fmt::format(" (compute capability {})", d.at("compute_capability").get<std::string>())
          : "";
  std::string text = fmt::format("{:<8} {}{}: {:.1f} GiB free, model.compute auto means {}\n",
                                 d.at("device").get<std::string>(), d.at("name").get<std::string>(),
                                 capability, d.at("memory_available").get<double>() / (1 << 30),
                                 d.at("compute").get<std::string>());
  if (!d.contains("copy_bytes_per_second")) return text;
  text += fmt::format("         copies {:.1f} GB/s (read and written)",
                      d.at("copy_bytes_per_second").get<double>() / 1e9);
  for (const auto& entry : d.at("gemm_flops_per_second").items()) {
    text += fmt::format(", products in {} {:.2f} TFLOP/s", entry.key(),
                        entry.value().get<double>() / 1e12);
  }
  return text + "\n";
}

}  // namespace

int command_doctor(const std::vector<std::string>& arguments) {
  CLI::App parser(
      "Shows what this program was built with, the devices of this machine, and what each can do "
      "at most: measured copies and products. A device that cannot be used is listed with the "
      "reason; named by --device, it is an error.",
      "doctor");
  bool as_json = false, no_measure = false;
  std::string only;
  LogArguments log;
  parser.add_flag("--json", as_json, "print JSON");
  parser.add_option("--device", only, "cpu, cuda or cuda:N alone; default: all there are");
  parser.add_flag("--no-measure", no_measure, "list the devices only");
  log.add_to(parser);
  parser.footer("Example:\n  medvqa doctor --device cuda");
  if (!parse(parser, arguments)) return 0;
  log.apply();
  nlohmann::ordered_json report{{"version", version_text()}, {"built_in", train::built_in()}};
  report["devices"] = only.empty() ? examine_all(!no_measure)
                                   : nlohmann::ordered_json::array({examine(only, !no_measure)});
  if (as_json) {
    std::cout << report.dump(2) << "\n";
    return 0;
  }
  std::cout << version_text() << "\n";
  for (const std::string& line : train::built_in()) std::cout << "  " << line << "\n";
  for (const auto& d : report["devices"]) std::cout << to_text(d);
  return 0;
}

}  // namespace medvqa::app
