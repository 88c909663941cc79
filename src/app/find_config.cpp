#include <fmt/format.h>

#include "medvqa/app/commands.h"
#include "medvqa/core/error.h"

namespace medvqa::app {

namespace fs = std::filesystem;

fs::path find_config(const std::string& name) {
  const fs::path given(name);
  if (fs::exists(given)) return given;
  const bool bare = !given.has_parent_path();
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  const fs::path installed =
      program.parent_path().parent_path() / "share" / "medvqa" / "configs" / given;
  const fs::path source = fs::path(MEDVQA_CONFIGS) / given;
  if (bare && fs::exists(source)) return source;
  if (bare && !error && fs::exists(installed)) return installed;
  throw UserError(
      ExitCode::config,
      bare ? fmt::format("configuration {} not found: neither in the current folder "
                         "nor among the shipped ones in {} or {}; check the name",
                         name, fs::path(MEDVQA_CONFIGS).string(), installed.parent_path().string())
           : fmt::format("configuration {} not found; check the path", name));
}

}  // namespace medvqa::app
