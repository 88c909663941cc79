#include "medvqa/models/config_reader.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "medvqa/core/error.h"

namespace medvqa::models {

ConfigReader::ConfigReader(const nlohmann::json& object, std::string path)
    : object_(object), path_(std::move(path)) {
  if (!object.is_object()) {
    throw UserError(ExitCode::model,
                    fmt::format("config.json: {} is {}, expected an object; the file is not a "
                                "model configuration of this family",
                                path_.empty() ? "the file" : path_, object.type_name()));
  }
}

void ConfigReader::refuse(const std::string& key, const std::string& found,
                          const std::string& expected) const {
  throw UserError(ExitCode::model,
                  fmt::format("config.json: {}{}{} is {}, expected {}; download the model's own "
                              "config.json again",
                              path_, path_.empty() ? "" : ".", key, found, expected));
}

bool ConfigReader::has(const std::string& key) const {
  return object_.contains(key) && !object_.at(key).is_null();
}

ConfigReader ConfigReader::section(const std::string& key) const {
  if (!has(key)) refuse(key, "missing", "an object");
  return {object_.at(key), path_.empty() ? key : path_ + "." + key};
}

std::int64_t ConfigReader::integer(const std::string& key,
                                   std::optional<std::int64_t> fallback) const {
  if (!has(key)) {
    if (fallback) return *fallback;
    refuse(key, "missing", "an integer");
  }
  const nlohmann::json& v = object_.at(key);
  const bool in_range = v.is_number_integer() && v.get<double>() >= 1 && v.get<double>() < 0x1p31;
  if (!in_range) refuse(key, v.dump(), "an integer from 1 to 2147483647");
  return v.get<std::int64_t>();
}

double ConfigReader::number(const std::string& key, double least, double most,
                            std::optional<double> fallback) const {
  const std::string expected = fmt::format("a number from {} to {}", least, most);
  if (!has(key)) {
    if (fallback) return *fallback;
    refuse(key, "missing", expected);
  }
  const nlohmann::json& v = object_.at(key);
  const bool in_range = v.is_number() && v.get<double>() >= least && v.get<double>() <= most;
  if (!in_range) refuse(key, v.dump(), expected);
  return v.get<double>();
}

bool ConfigReader::boolean(const std::string& key, bool fallback) const {
  if (!has(key)) return fallback;
  const nlohmann::json& v = object_.at(key);
  if (!v.is_boolean()) refuse(key, v.dump(), "true or false");
  return v.get<bool>();
}

std::string ConfigReader::text(const std::string& key, const std::string& fallback) const {
  if (!has(key)) return fallback;
  const nlohmann::json& v = object_.at(key);
  if (!v.is_string()) refuse(key, v.dump(), "a string");
  return v.get<std::string>();
}

}  // namespace medvqa::models
