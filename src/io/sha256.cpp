#include "medvqa/io/sha256.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <array>
#include <memory>

#include "medvqa/core/error.h"
#include "medvqa/io/file.h"
#include "medvqa/io/json.h"

namespace medvqa::io {
namespace fs = std::filesystem;
namespace {

constexpr const char* kManifest = "manifest.json";

}  // namespace

std::string sha256(std::span<const std::byte> bytes) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int length = 0;
  const int done =
      EVP_Digest(bytes.data(), bytes.size(), digest.data(), &length, EVP_sha256(), nullptr);
  MEDVQA_CHECK(done == 1, "OpenSSL could not compute a SHA-256");
  std::string text;
  for (unsigned int i = 0; i < length; ++i) text += fmt::format("{:02x}", digest[i]);
  return text;
}

std::string sha256_of_file(const fs::path& path, ExitCode code) {
  return sha256(MappedFile(path, code).bytes());
}

void write_manifest(const fs::path& folder) {
  nlohmann::json files = nlohmann::json::object();
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    const std::string name = fs::relative(entry.path(), folder).generic_string();
    if (!entry.is_regular_file() || name == kManifest) continue;
    files[name] = {{"bytes", entry.file_size()}, {"sha256", sha256_of_file(entry.path())}};
  }
  const nlohmann::json manifest = {{"files", files}};
  write_file_atomically(folder / kManifest, std::string_view(manifest.dump(2) + "\n"));
}

void check_manifest(const fs::path& folder, ExitCode code) {
  const fs::path path = folder / kManifest;
  const nlohmann::json manifest = read_json_file(path, {code});
  const JsonObject files = JsonObject(manifest, path.string(), code).object("files");
  for (const auto& item : manifest.at("files").items()) {
    const fs::path name = item.key();
    if (name.is_absolute() || item.key().find("..") != std::string::npos) {
      files.fail(fmt::format("\"{}\" leaves the folder", item.key()));
    }
    const std::string expected = files.object(item.key().c_str()).string("sha256");
    if (sha256_of_file(folder / name, code) != expected) {
      throw UserError(code, fmt::format("{} was altered: its SHA-256 is not the {} of {}",
                                        (folder / name).string(), expected, path.string()));
    }
  }
}

}  // namespace medvqa::io
