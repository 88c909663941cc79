#include "medvqa/train/lora_targets.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "medvqa/models/model.h"
#include "medvqa/ops/dry_backend.h"

namespace medvqa::train {

namespace {

// libstdc++ reads a pattern by recursion: a longer one could exhaust the stack.
constexpr std::size_t kLongestPattern = 2000;

// Time that does not grow exponentially with the name, whatever the pattern; without
// back-references.
#ifdef __GLIBCXX__
constexpr auto kSyntax = std::regex::ECMAScript | std::regex_constants::__polynomial;
#else
constexpr auto kSyntax = std::regex::ECMAScript;
#endif

// As much of a pattern as a message has room for.
std::string shown(const std::string& pattern) {
  constexpr std::size_t kRoom = 100;
  return pattern.size() <= kRoom ? pattern : pattern.substr(0, kRoom) + "...";
}

std::regex compiled(const std::string& pattern) {
  if (pattern.size() > kLongestPattern) {
    throw UserError(ExitCode::config,
                    fmt::format("lora.targets has {} characters, expected at most {}; name modules "
                                "by what they share",
                                pattern.size(), kLongestPattern));
  }
  try {
    return std::regex(pattern, kSyntax);
  } catch (const std::regex_error& e) {
    throw UserError(ExitCode::config,
                    fmt::format("lora.targets: \"{}\" is no regular expression ({})",
                                shown(pattern), e.what()));
  }
}

// Names without ".weight", in the model's order.
struct ModuleNames {
  std::vector<std::string> linears;  // may have an adapter
  std::vector<std::string> others;   // hold a matrix or a kernel, but have no adapter here
};

ModuleNames names_of(const nlohmann::json& model) {
  std::set<std::string> offered;
  nn::LoraOptions options;
  options.adapts = [&offered](const std::string& name, nn::LinearKind) {
    offered.insert(name);
    return false;
  };
  ops::DryBackend backend({});
  const nn::DescribedWeights source({});
  Arena weights("weights");
  Arena adapters("adapters");
  nn::Builder builder(backend, source, weights, adapters, DType::bf16, options,
                      nn::QuantizeOnLoad::no);
  models::build_model(model, builder);
  ModuleNames names;
  for (const nn::TensorRequest& r : source.requests()) {
    const bool wide = r.role == nn::TensorRole::linear || r.role == nn::TensorRole::embedding;
    if (!wide) continue;
    const std::string name = r.name.substr(0, r.name.rfind(".weight"));
    // A convolution is stored with its kernel's axes.
    const bool linear = offered.contains(name) && r.shape.size() == 2;
    (linear ? names.linears : names.others).push_back(name);
  }
  return names;
}

}  // namespace

LoraTargets::LoraTargets(const std::string& pattern)
    : pattern_(pattern), regex_(compiled(pattern)) {}

void LoraTargets::check(const nlohmann::json& model) const {
  const ModuleNames names = names_of(model);
  for (const std::string& name : names.others) {
    if (!matches(name)) continue;
    throw UserError(ExitCode::config,
                    fmt::format("lora.targets: \"{}\" matches {}, which can have no adapter here: "
                                "only linears of blocks, merger and projector can; write a pattern "
                                "that leaves it out",
                                shown(pattern_), name));
  }
  for (const std::string& name : names.linears) {
    if (matches(name)) return;
  }
  throw UserError(ExitCode::config,
                  fmt::format("lora.targets: \"{}\" matches none of the model's {} linears; it "
                              "must match a whole name, such as {}",
                              shown(pattern_), names.linears.size(), names.linears.front()));
}

}  // namespace medvqa::train
