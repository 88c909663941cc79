#include "medvqa/train/config_schema.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "medvqa/train/config_table.h"

namespace medvqa::train {

namespace {

using nlohmann::json;

json limit(double value) {
  if (value == std::floor(value)) return static_cast<std::int64_t>(value);
  return value;
}

json source_list() {
  const json text{{"type", "string"}};
  json source{
      {"type", "object"},
      {"additionalProperties", false},
      {"required", json::array({"format", "path"})},
      {"properties", {{"format", text}, {"path", text}, {"split", text}, {"delimiter", text}}}};
  source["properties"]["format"]["examples"] = {"vqa-rad", "jsonl", "json", "csv"};
  source["properties"]["path"]["description"] = "a file or folder, against this file's folder";
  source["properties"]["split"]["description"] = "train, val or test; without it every row";
  source["properties"]["delimiter"]["description"] = "of a csv file, one character; without it ,";
  return {{"type", "array"}, {"minItems", 1}, {"items", source}};
}

json held_out() {
  const json fraction{{"type", "number"}, {"minimum", 0}, {"exclusiveMaximum", 1}};
  return {{"type", "object"},
          {"additionalProperties", false},
          {"required", json::array({"fraction"})},
          {"properties", {{"fraction", fraction}, {"by", {{"const", "image"}}}}}};
}

// What a value may be, but for null.
json type_of(const ConfigKey& key) {
  switch (key.kind) {
    case KeyKind::boolean:
      return {{"type", "boolean"}};
    case KeyKind::integer:
    case KeyKind::number:
      return {{"type", key.kind == KeyKind::integer ? "integer" : "number"},
              {"minimum", limit(key.lowest)},
              {"maximum", limit(key.highest)}};
    case KeyKind::text:
    case KeyKind::path:
      return {{"type", "string"}, {"minLength", 1}};
    case KeyKind::choice:
      return {{"enum", key.choices}};
    case KeyKind::sources:
      return source_list();
    case KeyKind::validation:
      return {{"anyOf", json::array({held_out(), source_list()})}};
    case KeyKind::texts:
      return {
          {"type", "object"}, {"minProperties", 1}, {"additionalProperties", {{"type", "string"}}}};
  }
  return json::object();
}

json property_of(const ConfigKey& key) {
  json p = type_of(key);
  if (key.nullable) {
    if (p.contains("anyOf")) {
      p["anyOf"].push_back({{"type", "null"}});
    } else if (p.contains("enum")) {
      p["enum"].push_back(nullptr);
    } else {
      p["type"] = json::array({p["type"], "null"});
    }
  }
  p["description"] = key.doc;
  if (*key.fallback != '\0') p["default"] = json::parse(key.fallback);
  return p;
}

json section(const std::string& description) {
  return {{"type", "object"},
          {"description", description},
          {"additionalProperties", false},
          {"properties", json::object()}};
}

void require(json& object, const std::string& name) {
  json& required = object["required"];
  if (!required.is_array()) required = json::array();
  for (const json& known : required) {
    if (known == name) return;
  }
  required.push_back(name);
}

// Puts the key's property where its path says, and makes the sections on the way.
void add_key(json& schema, const ConfigKey& key) {
  const bool is_required = *key.fallback == '\0';
  const std::string path = key.path;
  json* object = &schema;
  std::size_t begin = 0;
  for (std::size_t dot = path.find('.'); dot != std::string::npos; dot = path.find('.', begin)) {
    const std::string name = path.substr(begin, dot - begin);
    if (is_required) require(*object, name);
    json& inner = (*object)["properties"][name];
    if (inner.is_null()) inner = section("keys " + path.substr(0, dot) + ".*");
    object = &inner;
    begin = dot + 1;
  }
  const std::string name = path.substr(begin);
  if (is_required) require(*object, name);
  (*object)["properties"][name] = property_of(key);
}

std::string range_of(const ConfigKey& key) {
  switch (key.kind) {
    case KeyKind::boolean:
      return "true or false";
    case KeyKind::integer:
      return fmt::format("integer, {:.0f} to {:.0f}", key.lowest, key.highest);
    case KeyKind::number:
      return fmt::format("number, {} to {}", key.lowest, key.highest);
    case KeyKind::text:
      return "text";
    case KeyKind::choice:
      return fmt::format("{}", fmt::join(key.choices, ", "));
    case KeyKind::path:
      return "path";
    case KeyKind::sources:
      return "list of `{\"format\", \"path\", \"split\"}`";
    case KeyKind::validation:
      return "`{\"fraction\", \"by\"}` or a list";
    case KeyKind::texts:
      return "object of texts";
  }
  return {};
}

std::string in_table(std::string text) {
  for (std::size_t i = text.find('|'); i != std::string::npos; i = text.find('|', i + 2)) {
    text.insert(i, "\\");
  }
  return text;
}

}  // namespace

json config_schema() {
  json schema = section("Configuration of a medvqa run; // comments are allowed in the file.");
  schema["$schema"] = "https://json-schema.org/draft/2020-12/schema";
  schema["title"] = "medvqa configuration";
  schema["properties"]["$schema"] = {{"type", "string"}, {"description", "where this file lies"}};
  for (const ConfigKey& key : config_keys()) add_key(schema, key);
  return schema;
}

std::string config_reference() {
  std::string page =
      "# Configuration\n\n"
      "JSON, `//` comments allowed. Made by `medvqa train --print-reference` from the table the "
      "program\nreads by (`src/train/config_table.cpp`). Precedence: defaults, the file, "
      "environment\n`MEDVQA__TRAIN__SEED=1`, `--set train.seed=1`. `${NAME}` and "
      "`${NAME:-default}` in a text are taken\nfrom the environment; paths resolve against the "
      "file's folder.\n\n"
      "| key | values | default | meaning |\n|---|---|---|---|\n";
  for (const ConfigKey& key : config_keys()) {
    const std::string values = range_of(key) + (key.nullable ? ", or null" : "");
    const std::string fallback =
        *key.fallback == '\0' ? "required" : fmt::format("`{}`", key.fallback);
    page += fmt::format("| `{}` | {} | {} | {} |\n", key.path, in_table(values), fallback,
                        in_table(key.doc));
  }
  return page;
}

std::string config_help() {
  std::string text = "Keys of a configuration, with their defaults:\n";
  for (const ConfigKey& key : config_keys()) {
    text += fmt::format("  {:<29} {:<12} {}\n", key.path,
                        *key.fallback == '\0' ? "(required)" : key.fallback, key.doc);
  }
  return text;
}

}  // namespace medvqa::train
