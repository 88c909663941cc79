#include "medvqa/train/fingerprint.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <vector>

#include "medvqa/io/classifier_head.h"
#include "medvqa/io/file.h"
#include "medvqa/io/json.h"
#include "medvqa/io/sha256.h"
#include "medvqa/train/config_table.h"
#include "medvqa/train/run_folder.h"

namespace medvqa::train {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr std::array kFree{
    "device",           "data.threads",  "train.epochs",    "train.max_steps",
    "train.recompute",  "train.offload", "train.log_every", "train.eval_every",
    "train.save_every", "train.keep",    "output"};

std::string hash_of(std::string_view text) {
  return io::sha256(io::bytes_of(text));
}

template <class T>
void append(std::string& bytes, const std::vector<T>& values) {
  if (values.empty()) return;
  bytes.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

// In order, each with the hash of those before it: a data set need not be held twice.
std::string hash_of(const data::Dataset& dataset) {
  std::string hash;
  for (const data::Example& e : dataset.examples) {
    std::error_code none;
    const std::uint64_t size = e.image.empty() ? 0 : fs::file_size(e.image, none);
    std::string bytes = fmt::format("{} {} {} {} {} {} {}\n", hash, e.ids.size(), e.grid.t,
                                    e.grid.h, e.grid.w, size, e.image.filename().string());
    append(bytes, e.ids);
    append(bytes, e.labels);
    if (e.class_index) bytes += fmt::format(" class {}", *e.class_index);
    hash = hash_of(bytes);
  }
  return hash;
}

// Gigabytes of weights are not read for this: pieces tell two checkpoints apart.
std::string hash_of_pieces(const fs::path& file) {
  constexpr std::size_t kWhole = std::size_t{16} << 20, kPieces = 64, kBytes = 4096;
  const io::MappedFile mapped(file, ExitCode::model);
  const std::string_view text = mapped.text();
  std::string bytes = fmt::format("{} {}\n", file.filename().string(), text.size());
  if (text.size() <= kWhole) return hash_of(bytes + std::string(text));
  for (std::size_t i = 0; i < kPieces; ++i) {
    const std::size_t begin = text.size() / kPieces * i;
    bytes += text.substr(begin, kBytes);
  }
  return hash_of(bytes);
}

std::string hash_of(const ModelInputs& model) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(model.folder)) {
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  std::string text = model.config.dump();
  for (const fs::path& file : files) text += hash_of_pieces(file);
  return hash_of(text);
}

json value_of(const nlohmann::ordered_json& resolved, const ConfigKey& key) {
  std::string path = key.path;
  std::replace(path.begin(), path.end(), '.', '/');
  const auto& value = resolved.at(nlohmann::ordered_json::json_pointer("/" + path));
  if (key.kind != KeyKind::texts) return value;
  // Their order counts, which an object does not keep.
  json pairs = json::array();
  for (const auto& item : value.items()) pairs.push_back({item.key(), item.value()});
  return pairs;
}

// As much of a value as a message has room for.
std::string shown(const json& value) {
  constexpr std::size_t kRoom = 60;
  const std::string text = value.dump();
  return text.size() <= kRoom ? text : text.substr(0, kRoom) + "...";
}

struct Difference {
  std::string key, text;
  bool of_files = false;  // the configuration says the same
};

std::vector<Difference> differences(const io::JsonObject& saved, const json& now) {
  std::vector<Difference> found;
  for (const auto& item : now.items()) {
    const std::string& key = item.key();
    // The program that saved did not have this key yet.
    if (!saved.has(key.c_str())) continue;
    const io::JsonObject old = saved.object(key.c_str());
    const json& before = old.at("value");
    const json& after = item.value().at("value");
    const bool same = before == after;
    const bool hashed = item.value().contains("sha256") && old.has("sha256");
    const bool same_files = hashed && item.value().at("sha256") == old.string("sha256");
    if (hashed ? same_files : same) continue;
    found.push_back({key,
                     same
                         ? fmt::format("the files of {} {} have changed", key, shown(after))
                         : fmt::format("{} was {} and is {} now", key, shown(before), shown(after)),
                     same});
  }
  return found;
}

// Names the changed settings, or else the changed files: a changed setting changes samples, too.
void check_keys(const fs::path& checkpoint, const std::vector<Difference>& found, bool allow) {
  constexpr std::size_t kShown = 4;
  const bool settings =
      std::any_of(found.begin(), found.end(), [](const Difference& d) { return !d.of_files; });
  std::vector<std::string> texts;
  for (const Difference& d : found) {
    if (d.of_files == !settings && texts.size() < kShown) texts.push_back(d.text);
  }
  if (texts.empty()) return;
  const std::string what = fmt::format("{}: it was saved under other settings: {}",
                                       checkpoint.string(), fmt::join(texts, ", "));
  if (allow) {
    spdlog::warn("{}; going on all the same", what);
    return;
  }
  const bool data = found.front().key.starts_with("data.");
  const ExitCode code = settings ? ExitCode::config : data ? ExitCode::data : ExitCode::model;
  throw UserError(code, fmt::format("{}; set back what was saved, go on all the same with "
                                    "--allow-changes, or begin anew in another output",
                                    what));
}

}  // namespace

bool may_change(const std::string& key) {
  return std::find(kFree.begin(), kFree.end(), key) != kFree.end();
}

json fingerprint_of(const Config& config, const ModelInputs& model, const DataInputs& data,
                    std::int64_t steps) {
  json keys = json::object();
  for (const ConfigKey& key : config_keys()) {
    if (!may_change(key.path)) keys[key.path] = {{"value", value_of(config.resolved, key)}};
  }
  // What auto came to here.
  keys["model.compute"]["value"] = medvqa::name_of(model.settings.compute);
  keys["model.path"]["sha256"] = hash_of(model);
  keys["data.train"]["sha256"] = hash_of(data.train);
  keys["data.validation"]["sha256"] = hash_of(data.validation);
  if (model.start) {
    const fs::path folder = model.start->path();
    std::string hash = io::sha256_of_file(folder / "adapter_model.safetensors");
    if (config.data.classes && fs::exists(folder / io::kHeadFile)) {
      hash = hash_of(hash + io::sha256_of_file(folder / io::kHeadFile));
    }
    keys["lora.init_from"]["sha256"] = hash;
  }
  return {{"steps", steps}, {"keys", keys}};
}

void check_fingerprint(const fs::path& checkpoint, const json& now, bool allow_changes) {
  const json state = read_state(checkpoint);
  const std::string name = (checkpoint / "state.json").string();
  const io::JsonObject object(state, name, ExitCode::model);
  const io::JsonObject run = object.object("run");
  const std::int64_t done = object.integer("step", 0), steps = now.at("steps");
  check_keys(checkpoint, differences(run.object("keys"), now.at("keys")), allow_changes);
  if (done > steps) {
    throw UserError(ExitCode::config,
                    fmt::format("{}: {} steps are done, but train.max_steps or train.epochs end "
                                "the run after {}; raise them, or go on from an earlier checkpoint",
                                checkpoint.string(), done, steps));
  }
  const std::int64_t planned = run.integer("steps", 0);
  const json schedule = now.at("keys").at("train.schedule").at("value");
  if (planned == steps || schedule == "constant") return;
  spdlog::warn(
      "{} steps were planned when the checkpoint was saved, {} are now: the {} schedule follows "
      "the number, so this is not the run of {} steps from the start",
      planned, steps, schedule.get<std::string>(), steps);
}

}  // namespace medvqa::train
