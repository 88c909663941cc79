// The linears that lora.targets names.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <regex>
#include <string>

namespace medvqa::train {

class LoraTargets {
 public:
  // An ECMAScript regular expression. UserError(ExitCode::config) if it is none, or too long.
  explicit LoraTargets(const std::string& pattern);

  // Whether it matches the whole of a module's name.
  bool matches(const std::string& name) const { return std::regex_match(name, regex_); }

  // UserError(ExitCode::config) if no linear of the model matches, or if something matches that
  // PEFT would adapt and this program does not: a convolution, an embedding, the head.
  // `model` is in the form of io/model_config.h.
  void check(const nlohmann::json& model) const;

 private:
  std::string pattern_;
  std::regex regex_;
};

}  // namespace medvqa::train
