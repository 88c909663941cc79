#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>

#include "medvqa/core/error.h"

namespace medvqa::io {

// Lower-case hexadecimal SHA-256 (FIPS 180-4), as sha256sum prints it.
std::string sha256(std::span<const std::byte> bytes);
std::string sha256_of_file(const std::filesystem::path& path, ExitCode code = ExitCode::io);

// Writes FOLDER/manifest.json: {"files": {"name": {"bytes", "sha256"}}} of every file below it but
// the manifest itself, names sorted, with '/' between folders.
void write_manifest(const std::filesystem::path& folder);

// UserError(code) naming the first file that is missing, extra bytes long or altered. Files the
// manifest does not name are no error.
void check_manifest(const std::filesystem::path& folder, ExitCode code = ExitCode::io);

}  // namespace medvqa::io
