#include "medvqa/train/run_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <map>
#include <vector>

#include "medvqa/io/file.h"
#include "medvqa/io/json.h"
#include "medvqa/io/safetensors.h"
#include "medvqa/io/sha256.h"

namespace medvqa::train {

namespace fs = std::filesystem;

namespace {

constexpr const char* kState = "state.json";
constexpr const char* kTensors = "training.safetensors";
// What a run writes into its folder, but for the event files.
constexpr std::array kWritten{
    "metrics.jsonl", "config.resolved.json", "checkpoints", "adapter", "loss.svg", "log.txt"};

std::string checkpoint_name(std::int64_t step) {
  return fmt::format("step-{:06}", step);
}

// The number in a checkpoint's name; nothing if it is not one.
std::optional<std::int64_t> step_of(const std::string& name) {
  const std::string digits = name.rfind("step-", 0) == 0 ? name.substr(5) : "";
  std::int64_t step = 0;
  const auto end = std::from_chars(digits.data(), digits.data() + digits.size(), step);
  const bool whole = !digits.empty() && end.ec == std::errc{} && *end.ptr == '\0';
  return whole ? std::optional(step) : std::nullopt;
}

std::map<std::int64_t, fs::path> saved_steps(const fs::path& checkpoints) {
  std::map<std::int64_t, fs::path> found;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(checkpoints, none)) {
    const std::optional<std::int64_t> step = step_of(entry.path().filename().string());
    if (step && !entry.is_symlink()) found[*step] = entry.path();
  }
  return found;
}

struct NamedTensor {
  std::string name;
  Tensor tensor;
};

// Everything a step reads and changes: values and optimizer state.
std::vector<NamedTensor> state_of(const AdaptedModel& model) {
  std::vector<NamedTensor> tensors;
  for (std::size_t i = 0; i < model.trained().size(); ++i) {
    const ops::AdamWTensor& t = model.trained()[i];
    const std::string& name = model.trained_names()[i];
    tensors.push_back({name, t.value});
    tensors.push_back({name + ".m", t.m});
    tensors.push_back({name + ".v", t.v});
    if (!t.eight_bit()) continue;
    tensors.push_back({name + ".m_absmax", t.m_absmax});
    tensors.push_back({name + ".v_absmax", t.v_absmax});
  }
  return tensors;
}

std::vector<std::int64_t> shape_of(const Tensor& t) {
  std::vector<std::int64_t> shape;
  shape.reserve(static_cast<std::size_t>(t.shape.rank()));
  for (int i = 0; i < t.shape.rank(); ++i) shape.push_back(t.dim(i));
  return shape;
}

std::optional<fs::path> find_checkpoint(const fs::path& run, const FolderRules& rules) {
  if (rules.resume == "none") return std::nullopt;
  if (rules.resume == "auto") {
    const fs::path latest = run / "checkpoints" / "latest";
    if (fs::exists(latest / kState)) return fs::canonical(latest);
    // A process killed while it replaced a checkpoint can leave the link pointing nowhere.
    const std::map<std::int64_t, fs::path> saved = saved_steps(run / "checkpoints");
    for (auto last = saved.rbegin(); last != saved.rend(); ++last) {
      if (fs::exists(last->second / kState)) return fs::canonical(last->second);
    }
    return std::nullopt;
  }
  const fs::path given(rules.resume);
  if (!fs::exists(given / kState)) {
    throw UserError(ExitCode::config,
                    fmt::format("--resume {}: no {} in it; name a folder checkpoints/step-N of a "
                                "run, or use --resume auto",
                                rules.resume, kState));
  }
  return fs::canonical(given);
}

void make_folder(const fs::path& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) {
    throw UserError(ExitCode::io, fmt::format("cannot make the folder {}: {}; choose another "
                                              "output folder or mend its permissions",
                                              path.string(), error.message()));
  }
}

// Only what a run writes is removed: the folder may hold something of the user's.
void remove_earlier_run(const fs::path& path) {
  if (!fs::is_directory(path)) return;
  for (const char* name : kWritten) fs::remove_all(path / name);
  std::vector<fs::path> events;
  for (const auto& entry : fs::directory_iterator(path)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("events.out.tfevents.")) events.push_back(entry.path());
  }
  for (const fs::path& file : events) fs::remove(file);
}

// What io/file.h builds beside its target stays when the process is killed. One process at a time
// works in a run's folder.
void remove_leftovers(const fs::path& run) {
  std::vector<fs::path> found;
  const auto look = [&](const fs::path& folder, const auto& names) {
    std::error_code none;
    for (const auto& entry : fs::directory_iterator(folder, none)) {
      const std::string name = entry.path().filename().string();
      for (const char* written : names) {
        const std::string text(written);
        if (name.starts_with(".tmp-" + text) || name.starts_with(".old-" + text)) {
          found.push_back(entry.path());
        }
      }
    }
  };
  look(run, kWritten);
  look(run / "checkpoints", std::array{"step-", "latest", "best"});
  std::error_code none;
  for (const fs::path& path : found) fs::remove_all(path, none);
}

// What to do without this checkpoint.
std::string way_out(const fs::path& checkpoint) {
  const std::optional<std::int64_t> step = step_of(checkpoint.filename().string());
  const std::map<std::int64_t, fs::path> saved = saved_steps(checkpoint.parent_path());
  const auto later = step ? saved.lower_bound(*step) : saved.begin();
  std::string anew = "begin anew with --overwrite";
  if (later == saved.begin()) return anew;
  return fmt::format("go on from an earlier one with --resume {}, or {}",
                     std::prev(later)->second.string(), anew);
}

void check_whole(const fs::path& checkpoint) {
  try {
    io::check_manifest(checkpoint, ExitCode::model);
  } catch (const UserError& error) {
    throw UserError(error.code(), fmt::format("{}; the checkpoint is damaged: {}", error.what(),
                                              way_out(checkpoint)));
  }
}

}  // namespace

bool is_used(const fs::path& path) {
  std::error_code error;
  const bool used =
      fs::exists(path, error) && (!fs::is_directory(path, error) || !fs::is_empty(path, error));
  if (!error || error == std::errc::no_such_file_or_directory ||
      error == std::errc::not_a_directory) {
    return used;
  }
  throw UserError(ExitCode::io, fmt::format("cannot look into {}: {}; mend its permissions or "
                                            "choose another output folder",
                                            path.string(), error.message()));
}

nlohmann::json read_state(const fs::path& checkpoint) {
  return io::read_json_file(checkpoint / kState, {.code = ExitCode::model});
}

std::optional<fs::path> RunFolder::check(const fs::path& path, const FolderRules& rules) {
  std::optional<fs::path> checkpoint = find_checkpoint(path, rules);
  // A run that was killed before its first checkpoint left its configuration: it may begin anew.
  const bool begun = rules.resume == "auto" && fs::exists(path / "config.resolved.json");
  if (is_used(path) && !checkpoint && !begun && !rules.overwrite) {
    throw UserError(ExitCode::config,
                    fmt::format("output {} is not empty; continue it with --resume auto, replace "
                                "it with --overwrite, or choose another output",
                                path.string()));
  }
  return checkpoint;
}

RunFolder::RunFolder(fs::path path, const FolderRules& rules, const nlohmann::ordered_json& config,
                     nlohmann::json fingerprint)
    : path_(std::move(path)),
      checkpoint_(check(path_, rules)),
      fingerprint_(std::move(fingerprint)) {
  if (is_used(path_) && !checkpoint_ && rules.overwrite) remove_earlier_run(path_);
  make_folder(path_);
  remove_leftovers(path_);
  io::write_file_atomically(path_ / "config.resolved.json", config.dump(2) + "\n");
}

void RunFolder::keep_metrics_until(std::int64_t step) {
  const fs::path file = path_ / "metrics.jsonl";
  std::string kept;
  if (fs::exists(file)) {
    const std::string text = io::read_text_file(file);
    for (std::size_t begin = 0; begin < text.size();) {
      const std::size_t end = std::min(text.find('\n', begin), text.size());
      const std::string line = text.substr(begin, end - begin);
      const nlohmann::json j = nlohmann::json::parse(line, nullptr, false);
      // A line cut short by a crash is no JSON.
      if (j.is_object() && j.value("step", std::int64_t{0}) <= step) kept += line + "\n";
      begin = end + 1;
    }
  }
  io::write_file_atomically(file, kept);
  metrics_.open(file, std::ios::app);
}

void RunFolder::log(const nlohmann::json& line) {
  metrics_ << line.dump() << std::endl;
  if (metrics_) return;
  throw UserError(ExitCode::io, fmt::format("cannot write {}; is the disk full? The last "
                                            "checkpoint is whole: go on with --resume auto",
                                            (path_ / "metrics.jsonl").string()));
}

void RunFolder::point(const std::string& link, const std::string& target) const {
  const fs::path folder = path_ / "checkpoints";
  const fs::path aside = folder / (".tmp-" + link);
  fs::remove(aside);
  fs::create_symlink(target, aside);
  fs::rename(aside, folder / link);
  io::sync_folder(folder);
}

void RunFolder::save_checkpoint(ops::Backend& backend, const AdaptedModel& model,
                                const Progress& progress, std::int64_t keep) {
  make_folder(path_ / "checkpoints");
  const std::string name = checkpoint_name(progress.step);
  io::AtomicFolder folder(path_ / "checkpoints" / name);
  const std::vector<NamedTensor> tensors = state_of(model);
  std::vector<io::TensorSpec> specs;
  specs.reserve(tensors.size());
  for (const NamedTensor& t : tensors) {
    specs.push_back({t.name, t.tensor.dtype, shape_of(t.tensor)});
  }
  io::SafetensorsWriter writer(folder.aside() / kTensors, specs, {{"format", "pt"}});
  std::vector<std::byte> bytes;
  for (const NamedTensor& t : tensors) {
    bytes.resize(t.tensor.bytes());
    backend.download(t.tensor, bytes.data(), bytes.size());
    writer.write(t.name, bytes);
  }
  writer.commit();
  nlohmann::json state{{"step", progress.step}, {"best_step", progress.best_step}};
  state["best_loss"] = progress.best_loss ? nlohmann::json(*progress.best_loss) : nullptr;
  if (progress.loss_scale) {
    const LossScale::State& s = progress.loss_scale->state();
    state["loss_scale"] = {
        {"scale", s.scale}, {"finite_steps", s.finite_steps}, {"skipped", progress.skipped}};
  }
  if (progress.samples_per_pass) state["samples_per_pass"] = *progress.samples_per_pass;
  state["run"] = fingerprint_;
  folder.write(kState, state.dump(2) + "\n");
  io::write_manifest(folder.aside());
  folder.commit();
  point("latest", name);
  if (progress.best_loss && progress.best_step == progress.step) point("best", name);
  prune(keep, progress.step);
}

void RunFolder::prune(std::int64_t keep, std::int64_t step) const {
  const fs::path folder = path_ / "checkpoints";
  std::error_code none;
  const std::string best = fs::read_symlink(folder / "best", none).string();
  std::map<std::int64_t, fs::path> found = saved_steps(folder);
  // Later ones are of a way abandoned by going on from an older checkpoint; they do not count.
  found.erase(found.upper_bound(step), found.end());
  auto surplus = static_cast<std::int64_t>(found.size()) - keep;
  for (const auto& old : found) {
    if (surplus-- <= 0) break;
    if (old.second.filename() != best) fs::remove_all(old.second);
  }
}

namespace {

void restore_loss_scale(const io::JsonObject& saved, Progress& p) {
  const auto scale = static_cast<float>(saved.number("scale"));
  int exponent = 0;
  // Another factor would round gradients when it is divided out.
  if (!std::isfinite(scale) || std::frexp(scale, &exponent) != 0.5f) {
    throw UserError(ExitCode::model, fmt::format("{}: loss_scale.scale is {}, expected a power of "
                                                 "two; the checkpoint is damaged",
                                                 kState, scale));
  }
  p.skipped = saved.integer("skipped", 0);
  p.loss_scale.emplace();
  p.loss_scale->restore({.scale = scale, .finite_steps = saved.integer("finite_steps", 0)});
}

}  // namespace

std::optional<std::int64_t> samples_per_pass_of(const fs::path& checkpoint) {
  const nlohmann::json state = read_state(checkpoint);
  const io::JsonObject object(state, (checkpoint / kState).string(), ExitCode::model);
  if (!object.has("samples_per_pass")) return {};
  return std::max<std::int64_t>(1, object.integer("samples_per_pass", 1));
}

Progress restore_checkpoint(const fs::path& checkpoint, ops::Backend& backend,
                            AdaptedModel& model) {
  check_whole(checkpoint);
  const nlohmann::json state = read_state(checkpoint);
  const io::JsonObject object(state, (checkpoint / kState).string(), ExitCode::model);
  const io::SafetensorsFile file(checkpoint / kTensors);
  const std::vector<NamedTensor> tensors = state_of(model);
  if (file.entries().size() != tensors.size()) {
    throw UserError(ExitCode::model,
                    fmt::format("{}: {} tensors, expected {}; the checkpoint belongs to another "
                                "model, adapter or optimizer",
                                checkpoint.string(), file.entries().size(), tensors.size()));
  }
  for (const NamedTensor& t : tensors) {
    const nn::HostTensor stored = file.tensor(t.name);
    if (stored.dtype != t.tensor.dtype || stored.shape != shape_of(t.tensor)) {
      throw UserError(ExitCode::model,
                      fmt::format("{}: {} is {} [{}], expected {}; the checkpoint belongs to "
                                  "another model, adapter or optimizer",
                                  checkpoint.string(), t.name, name_of(stored.dtype),
                                  fmt::join(stored.shape, ", "), t.tensor.str()));
    }
    backend.upload(stored.bytes.data(), stored.bytes.size(), t.tensor);
  }
  Progress p;
  p.step = object.integer("step", 0);
  p.best_step = object.integer("best_step", 0);
  if (object.has("best_loss")) p.best_loss = object.number("best_loss");
  if (object.has("loss_scale")) restore_loss_scale(object.object("loss_scale"), p);
  return p;
}

}  // namespace medvqa::train
