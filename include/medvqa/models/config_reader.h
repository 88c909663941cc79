// Numbers of a config.json with the key's full name in every complaint.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

namespace medvqa::models {

class ConfigReader {
 public:
  ConfigReader(const nlohmann::json& object, std::string path);

  bool has(const std::string& key) const;  // present and not null
  ConfigReader section(const std::string& key) const;
  // Integers must lie in [1, 2^31); without a fallback a missing key is an error.
  std::int64_t integer(const std::string& key, std::optional<std::int64_t> fallback = {}) const;
  // A number in [least, most].
  double number(const std::string& key, double least, double most,
                std::optional<double> fallback = {}) const;
  bool boolean(const std::string& key, bool fallback) const;
  std::string text(const std::string& key, const std::string& fallback) const;
  const nlohmann::json& json() const { return object_; }
  // UserError(ExitCode::model) about one key.
  [[noreturn]] void refuse(const std::string& key, const std::string& found,
                           const std::string& expected) const;

 private:
  const nlohmann::json& object_;
  std::string path_;
};

}  // namespace medvqa::models
