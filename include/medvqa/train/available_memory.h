// How much memory this process may still take.
#pragma once

#include <cstddef>
#include <filesystem>

namespace medvqa::train {

// Bytes: what the system has left (MemAvailable of /proc/meminfo), or what the control groups this
// process is in leave of their limits, if that is less: Slurm and containers set them (versions 1
// and 2; cached files a group can drop count as free). `root`: of the file system, for tests.
std::size_t available_memory(const std::filesystem::path& root = "/");

// Four fifths of it: the rest stays for the page cache of the mapped checkpoint, images and the C
// library.
std::size_t usable_memory();

}  // namespace medvqa::train
