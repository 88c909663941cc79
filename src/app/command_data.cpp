#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <map>

#include "medvqa/app/arguments.h"
#include "medvqa/app/commands.h"
#include "medvqa/data/synth.h"

namespace medvqa::app {

namespace {

constexpr const char* kUsage = R"(Looks after data sets.

Usage: medvqa data WHAT [OPTIONS]

  synth   draw chest radiograph phantoms with labels, boxes, questions and answers
  check   read a configuration's data and say what is wrong with it

medvqa data WHAT --help lists the options.
)";

int command_data_synth(const std::vector<std::string>& arguments) {
  CLI::App parser(
      "Draws chest radiograph phantoms with known findings, lesion boxes, a report, closed and "
      "open "
      "questions. The same options give the same pictures.",
      "data synth");
  data::SynthRequest request;
  std::string out;
  LogArguments log;
  const std::map<std::string, data::QuestionKind> kinds{{"all", data::QuestionKind::all},
                                                        {"closed", data::QuestionKind::closed},
                                                        {"open", data::QuestionKind::open}};
  const std::map<std::string, ImageFormat> formats{{"png", ImageFormat::png},
                                                   {"jpeg", ImageFormat::jpeg}};
  std::map<std::string, data::Finding> findings;
  for (const data::Finding f : data::kFindings) {
    const std::string name = data::name_of(f);
    findings[name.substr(name.find(' ') + 1)] = f;
  }
  std::vector<std::string> drawn;
  std::string kind = "all", format = "png";
  parser.add_option("--out", out, "folder to make: images/ and dataset.json")->required();
  parser.add_option("--count", request.count, "images")->capture_default_str();
  parser.add_option("--seed", request.seed, "of everything that is drawn")->capture_default_str();
  parser.add_option("--size", request.size, "pixels on a side")->capture_default_str();
  parser.add_option("--format", format, "png or jpeg")
      ->check(CLI::IsMember({"png", "jpeg"}))
      ->capture_default_str();
  parser.add_option("--validation", request.validation, "share of the images in split val")
      ->capture_default_str();
  parser.add_option("--questions", kind, "all, closed (yes or no) or open")
      ->check(CLI::IsMember({"all", "closed", "open"}))
      ->capture_default_str();
  parser
      .add_option("--per-image", request.per_image,
                  "questions asked of one image, taken in turn; 0: all that apply")
      ->capture_default_str();
  parser.add_flag("--text-only", request.text_only, "reports and questions, no pictures");
  std::vector<std::string> names;
  names.reserve(findings.size());
  for (const auto& f : findings) names.push_back(f.first);
  parser
      .add_option("--findings", drawn,
                  fmt::format("any of {}; default: all", fmt::join(names, ", ")))
      ->delimiter(',')
      ->check(CLI::IsMember(names));
  log.add_to(parser);
  parser.footer("Example:\n  medvqa data synth --out data/phantoms --count 600 --seed 7");
  if (!parse(parser, arguments)) return 0;
  log.apply();
  request.out = out;
  if (!drawn.empty()) request.findings.clear();
  for (const std::string& name : drawn) request.findings.push_back(findings.at(name));
  request.questions = kinds.at(kind);
  request.format = formats.at(format);
  const data::SynthCounts counts = data::write_synthetic_dataset(request);
  fmt::print("{}: {} {}, {} training and {} held-out questions\n", out, counts.images,
             request.text_only ? "reports" : "images", counts.train, counts.validation);
  return 0;
}

}  // namespace

int command_data(const std::vector<std::string>& arguments) {
  const std::string what = arguments.empty() ? "" : arguments.front();
  if (what == "--help" || what == "-h") {
    std::cout << kUsage;
    return 0;
  }
  if (what != "synth" && what != "check") {
    throw UserError(ExitCode::usage,
                    fmt::format("data: {}, expected synth or check; see medvqa data --help",
                                what.empty() ? "nothing given" : "unknown \"" + what + "\""));
  }
  const std::vector<std::string> rest(arguments.begin() + 1, arguments.end());
  return what == "synth" ? command_data_synth(rest) : command_data_check(rest);
}

}  // namespace medvqa::app
