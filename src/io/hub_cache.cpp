#include "medvqa/io/hub_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>

#include "medvqa/core/error.h"
#include "medvqa/io/file.h"

namespace medvqa::io {
namespace fs = std::filesystem;
namespace {

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

fs::path cache_folder() {
  for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"}) {
    const std::string folder = environment(name);
    if (!folder.empty()) return folder;
  }
  const std::string home = environment("HF_HOME");
  if (!home.empty()) return fs::path(home) / "hub";
  const std::string cache = environment("XDG_CACHE_HOME");
  if (!cache.empty()) return fs::path(cache) / "huggingface" / "hub";
  return fs::path(environment("HOME")) / ".cache" / "huggingface" / "hub";
}

bool is_name_part(const std::string& text) {
  const auto allowed = [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.';
  };
  return !text.empty() && text.front() != '.' && std::all_of(text.begin(), text.end(), allowed);
}

bool looks_like_hub_id(const std::string& text) {
  const auto slash = text.find('/');
  return slash != std::string::npos && is_name_part(text.substr(0, slash)) &&
         is_name_part(text.substr(slash + 1));
}

std::string trimmed(std::string text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back())) != 0) {
    text.pop_back();
  }
  return text;
}

// The snapshot refs/main points at; without it the only one there is.
fs::path snapshot_in(const fs::path& repository) {
  const fs::path reference = repository / "refs" / "main";
  if (fs::is_regular_file(reference)) {
    const std::string hash = trimmed(read_text_file(reference, ExitCode::model, 4096));
    const fs::path folder = repository / "snapshots" / hash;
    if (is_name_part(hash) && fs::is_directory(folder)) return folder;
  }
  fs::path only;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(repository / "snapshots", error)) {
    if (!only.empty()) return {};
    only = entry.path();
  }
  return only;
}

}  // namespace

fs::path find_model_folder(const std::string& path_or_hub_id) {
  if (fs::is_directory(path_or_hub_id)) return path_or_hub_id;
  if (!looks_like_hub_id(path_or_hub_id)) {
    throw UserError(ExitCode::model,
                    fmt::format("model \"{}\": no such folder; expected a folder with config.json "
                                "or a Hub id such as Qwen/Qwen2-VL-2B-Instruct",
                                path_or_hub_id));
  }
  std::string name = path_or_hub_id;
  name.replace(name.find('/'), 1, "--");
  const fs::path cache = cache_folder();
  const fs::path folder = snapshot_in(cache / ("models--" + name));
  if (!folder.empty() && fs::exists(folder / "config.json")) return folder;
  throw UserError(ExitCode::model,
                  fmt::format("model \"{}\": no such folder, and not complete in the Hugging Face "
                              "cache {}; download it with: hf download {}",
                              path_or_hub_id, cache.string(), path_or_hub_id));
}

}  // namespace medvqa::io
