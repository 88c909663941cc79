#include "medvqa/train/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <set>

#include "medvqa/io/json.h"
#include "medvqa/train/config_table.h"

namespace medvqa::train {

namespace {

using Json = nlohmann::ordered_json;
using Environment = std::map<std::string, std::string>;

// Replaces ${NAME} and ${NAME:-default} in every string below `value`.
void interpolate(Json& value, const Environment& environment, const std::string& where) {
  if (value.is_structured()) {
    for (Json& child : value) interpolate(child, environment, where);
    return;
  }
  if (!value.is_string()) return;
  const std::string text = value.get<std::string>();
  std::string out;
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t end = text.compare(i, 2, "${") == 0 ? text.find('}', i) : std::string::npos;
    if (end == std::string::npos) {
      out += text[i++];
      continue;
    }
    const std::string inside = text.substr(i + 2, end - i - 2);
    const std::size_t dash = inside.find(":-");
    const std::string name = inside.substr(0, dash);
    const auto found = environment.find(name);
    const bool set =
        found != environment.end() && (dash == std::string::npos || !found->second.empty());
    if (!set && dash == std::string::npos) {
      throw UserError(ExitCode::config,
                      fmt::format("{}: \"{}\" uses the environment variable {}, which is not set; "
                                  "set it or write ${{{}:-default}}",
                                  where, text, name, name));
    }
    out += set ? found->second : inside.substr(dash + 2);
    i = end + 1;
  }
  value = out;
}

std::string resolved_path(const std::string& path, const std::filesystem::path& folder) {
  const std::filesystem::path p(path);
  return (p.is_absolute() ? p : folder / p).lexically_normal().string();
}

// Paths inside a value, made absolute or relative to where they were written.
void resolve_paths(const ConfigKey& key, Json& value, const std::filesystem::path& folder) {
  if (key.kind == KeyKind::path && value.is_string()) {
    const std::string text = value.get<std::string>();
    // "org/name" may be a Hub id; it stays as it is unless there is such a folder.
    const bool hub_like = std::string(key.path) == "model.path" &&
                          std::count(text.begin(), text.end(), '/') == 1 && text[0] != '.' &&
                          !std::filesystem::exists(folder / text);
    if (!hub_like) value = resolved_path(text, folder);
  }
  if (value.is_array()) {
    for (Json& source : value) {
      source["path"] = resolved_path(source["path"].get<std::string>(), folder);
    }
  }
}

class Resolver {
 public:
  explicit Resolver(const Environment& environment) : environment_(environment) {
    for (const ConfigKey& key : config_keys()) {
      if (*key.fallback != '\0') at(key.path) = Json::parse(key.fallback);
    }
  }

  void set(const std::string& path, Json value, const std::string& where,
           const std::filesystem::path& folder) {
    const ConfigKey* key = find_key(path);
    if (key == nullptr) {
      throw UserError(ExitCode::config, fmt::format("{}: unknown key {}; did you mean {}?", where,
                                                    path, nearest_key(path)));
    }
    interpolate(value, environment_, where);
    check_value(*key, value, where);
    resolve_paths(*key, value, folder);
    at(path) = std::move(value);
  }

  // Every leaf of a configuration file.
  void merge(const Json& object, const std::string& prefix, const std::string& where,
             const std::filesystem::path& folder) {
    for (const auto& item : object.items()) {
      if (prefix.empty() && item.key() == "$schema") continue;
      const std::string path = prefix.empty() ? item.key() : prefix + "." + item.key();
      const bool section = find_key(path) == nullptr && item.value().is_object();
      if (section && is_section(path)) {
        merge(item.value(), path, where, folder);
      } else {
        set(path, item.value(), where, folder);
      }
    }
  }

  Json finish(const std::string& where) const {
    for (const ConfigKey& key : config_keys()) {
      if (*key.fallback == '\0' && !resolved_.contains(pointer(key.path))) {
        throw UserError(ExitCode::config, fmt::format("{}: {} is missing; it is required ({})",
                                                      where, key.path, key.doc));
      }
    }
    return resolved_;
  }

 private:
  static Json::json_pointer pointer(std::string path) {
    std::replace(path.begin(), path.end(), '.', '/');
    return Json::json_pointer("/" + path);
  }
  Json& at(const std::string& path) { return resolved_[pointer(path)]; }
  static bool is_section(const std::string& path) {
    return std::any_of(config_keys().begin(), config_keys().end(), [&](const ConfigKey& k) {
      return std::string(k.path).rfind(path + ".", 0) == 0;
    });
  }

  const Environment& environment_;
  Json resolved_ = Json::object();
};

// A value on the command line or in the environment: JSON, or else a plain word.
Json parse_value(const std::string& text) {
  Json value = Json::parse(text, nullptr, false);
  return value.is_discarded() ? Json(text) : value;
}

void apply_environment(Resolver& resolver, const Environment& environment) {
  const std::string prefix = "MEDVQA__";
  for (const auto& variable : environment) {
    if (variable.first.rfind(prefix, 0) != 0) continue;
    std::string path;
    const std::string name = variable.first.substr(prefix.size());
    for (std::size_t i = 0; i < name.size(); ++i) {
      if (name.compare(i, 2, "__") == 0) {
        path += '.';
        ++i;
      } else {
        path += static_cast<char>(std::tolower(static_cast<unsigned char>(name[i])));
      }
    }
    resolver.set(path, parse_value(variable.second), "environment variable " + variable.first,
                 std::filesystem::current_path());
  }
}

void apply_overrides(Resolver& resolver, const std::vector<std::string>& overrides) {
  for (const std::string& o : overrides) {
    const std::size_t equals = o.find('=');
    if (equals == std::string::npos || equals == 0) {
      throw UserError(ExitCode::usage,
                      fmt::format("--set {}: expected KEY=JSON, as in --set train.seed=1", o));
    }
    resolver.set(o.substr(0, equals), parse_value(o.substr(equals + 1)), "--set " + o,
                 std::filesystem::current_path());
  }
}

template <class T>
std::optional<T> maybe(const Json& v) {
  return v.is_null() ? std::nullopt : std::optional<T>(v.get<T>());
}

// A quote or a line break would take a cell apart.
char delimiter_of(const Json& source) {
  const std::string text = source.value("delimiter", ",");
  const bool is_csv = source.at("format") == "csv";
  if (is_csv && text.size() == 1 && text.find_first_of("\"\r\n") == std::string::npos) {
    return text[0];
  }
  if (!is_csv && !source.contains("delimiter")) return ',';
  throw UserError(ExitCode::config,
                  fmt::format("data source: delimiter is {} with format {}, expected one character "
                              "such as \";\" or \"\\t\", with format csv alone",
                              source.at("delimiter").dump(), source.at("format").dump()));
}

std::vector<data::Source> sources(const Json& list) {
  static const std::set<std::string> known = {"format", "path", "split", "delimiter"};
  std::vector<data::Source> out;
  for (const Json& s : list) {
    for (const auto& item : s.items()) {
      if (known.contains(item.key())) continue;
      throw UserError(ExitCode::config,
                      fmt::format("data source: unknown key {}, expected format, path, split or "
                                  "delimiter",
                                  item.key()));
    }
    out.push_back(
        {s.at("format"), s.at("path").get<std::string>(), s.value("split", ""), delimiter_of(s)});
  }
  return out;
}

LoraConfig lora_config(const Json& j) {
  LoraConfig c;
  c.r = j.at("r");
  c.alpha = j.at("alpha");
  c.dropout = j.at("dropout");
  c.rslora = j.at("rslora");
  c.vision = j.at("vision");
  c.language = j.at("language");
  c.attention = j.at("attention");
  c.mlp = j.at("mlp");
  c.targets = maybe<std::string>(j.at("targets"));
  c.init_from = maybe<std::string>(j.at("init_from"));
  return c;
}

DataConfig data_config(const Json& j) {
  DataConfig c;
  c.train = sources(j.at("train"));
  const Json& validation = j.at("validation");
  if (validation.is_array()) c.validation = sources(validation);
  if (validation.is_object()) c.validation_fraction = validation.at("fraction").get<double>();
  c.prompt.prompt = j.at("prompt");
  c.prompt.system = maybe<std::string>(j.at("system"));
  c.prompt.image_first = j.at("image_first");
  c.prompt.loss_on = j.at("loss_on") == "all" ? LossOn::all : LossOn::answer;
  c.max_length = j.at("max_length");
  c.drop_too_long = j.at("too_long") == "drop";
  c.min_pixels = maybe<std::int64_t>(j.at("image").at("min_pixels"));
  c.max_pixels = maybe<std::int64_t>(j.at("image").at("max_pixels"));
  c.packing = j.at("packing");
  c.shuffle = j.at("shuffle");
  c.group_by_length = j.at("group_by_length");
  c.threads = j.at("threads");
  return c;
}

// Which classes there are, in the order they are written in, and where a record has its own.
data::Classes classes_of(const Json& resolved) {
  data::Classes c;
  c.column = resolved.at("data").at("label");
  const Json& classes = resolved.at("classification").at("classes");
  for (const auto& item : classes.items()) {
    c.labels.push_back(item.key());
    c.texts.push_back(item.value());
  }
  if (c.labels.size() >= 2) return c;
  throw UserError(
      ExitCode::config,
      fmt::format("classification.classes is {}: found one class, expected at least two "
                  "like {{\"0\": \" No\", \"1\": \" Yes\"}}",
                  classes.dump()));
}

std::optional<autograd::Recompute> recompute_of(const std::string& name) {
  if (name == "all") return autograd::Recompute::all;
  if (name == "attention_saved") return autograd::Recompute::attention_saved;
  if (name == "none") return autograd::Recompute::none;
  return std::nullopt;
}

TrainConfig train_config(const Json& j) {
  TrainConfig c;
  c.batch_size = j.at("batch_size");
  c.gradient_accumulation = j.at("gradient_accumulation");
  c.epochs = j.at("epochs");
  c.max_steps = maybe<std::int64_t>(j.at("max_steps"));
  c.learning_rate = j.at("learning_rate");
  c.schedule = j.at("schedule") == "cosine"     ? Schedule::cosine
               : j.at("schedule") == "constant" ? Schedule::constant
                                                : Schedule::linear;
  c.warmup_steps = j.at("warmup_steps");
  c.weight_decay = j.at("weight_decay");
  c.max_grad_norm = j.at("max_grad_norm");
  c.eight_bit = j.at("optimizer") == "adamw8bit";
  c.recompute = recompute_of(j.at("recompute"));
  c.offload = j.at("offload") == "all"    ? Offload::all
              : j.at("offload") == "none" ? Offload::none
                                          : Offload::automatic;
  c.seed = j.at("seed");
  c.log_every = j.at("log_every");
  c.eval_every = maybe<std::int64_t>(j.at("eval_every"));
  c.save_every = maybe<std::int64_t>(j.at("save_every"));
  c.keep = j.at("keep");
  return c;
}

}  // namespace

double LoraConfig::scaling() const {
  const auto rank = static_cast<double>(r);
  return alpha / (rslora ? std::sqrt(rank) : rank);
}

Config load_config(const std::filesystem::path& file, const std::vector<std::string>& overrides,
                   const Environment& environment) {
  const Json from_file =
      io::read_ordered_json_file(file, {.code = ExitCode::config, .comments = true});
  if (!from_file.is_object()) {
    throw UserError(ExitCode::config, file.string() + ": expected an object of sections");
  }
  Resolver resolver(environment);
  const std::filesystem::path folder = std::filesystem::absolute(file).parent_path();
  resolver.merge(from_file, "", file.string(), folder);
  apply_environment(resolver, environment);
  apply_overrides(resolver, overrides);

  Config c;
  c.resolved = resolver.finish(file.string());
  const Json& j = c.resolved;
  c.task = j.at("task");
  c.device = j.at("device");
  const Json& m = j.at("model");
  c.model = {m.at("path"), m.at("quantization"), m.at("double_quant"), m.at("compute"),
             m.at("vision_features")};
  c.lora = lora_config(j.at("lora"));
  c.data = data_config(j.at("data"));
  if (c.task == "classification") {
    c.data.classes = classes_of(j);
    for (auto* list : {&c.data.train, &c.data.validation}) {
      for (data::Source& s : *list) s.text_only = true;
    }
  }
  c.train = train_config(j.at("train"));
  c.output = j.at("output").get<std::string>();
  return c;
}

}  // namespace medvqa::train
