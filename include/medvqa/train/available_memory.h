// How much memory this process may still take, of the host's and of a device's own.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>

#include "medvqa/ops/backend.h"

namespace medvqa::train {

// Bytes: what the system has left (MemAvailable of /proc/meminfo), or what the control groups this
// process is in leave of their limits, if that is less: Slurm and containers set them (versions 1
// and 2; cached files a group can drop count as free). `root`: of the file system, for tests.
std::size_t available_memory(const std::filesystem::path& root = "/");

// Of the memory that a backend's tensors lie in: the device's own, or the host's as above.
std::size_t available_memory(const ops::Backend& backend);
// For messages: "the machine", or the device by its name.
std::string memory_owner(const ops::Backend& backend);

// What a plan may take of it. On the host four fifths: the rest stays for the page cache of the
// mapped checkpoint, images and the C library. On a device all but a fixed part, which cuBLAS and
// kernels that are loaded later take.
std::size_t usable_memory(const ops::Backend& backend);

}  // namespace medvqa::train
