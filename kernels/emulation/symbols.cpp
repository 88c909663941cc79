// Names of kernels for faults. They are mostly local symbols, which only the symbol table of the
// program's file has.
#include <cxxabi.h>
#include <elf.h>
#include <fmt/format.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <vector>

#include "kernels/emulation/block.h"

extern "C" {
extern char __executable_start;  // NOLINT
}

namespace medvqa::emulation {

namespace {

template <class T>
std::vector<T> read_at(std::ifstream& file, std::uint64_t offset, std::size_t count) {
  std::vector<T> values(count);
  file.seekg(static_cast<std::streamoff>(offset));
  file.read(reinterpret_cast<char*>(values.data()),
            static_cast<std::streamsize>(count * sizeof(T)));
  if (!file) values.clear();
  return values;
}

std::string mangled_name(const void* function) {
  std::ifstream file("/proc/self/exe", std::ios::binary);
  const auto headers = read_at<Elf64_Ehdr>(file, 0, 1);
  if (headers.empty()) return {};
  const Elf64_Ehdr& header = headers[0];
  const auto base = header.e_type == ET_DYN ? reinterpret_cast<std::uintptr_t>(&__executable_start)
                                            : std::uintptr_t{0};
  const auto sections = read_at<Elf64_Shdr>(file, header.e_shoff, header.e_shnum);
  for (const Elf64_Shdr& s : sections) {
    if (s.sh_type != SHT_SYMTAB || s.sh_link >= sections.size()) continue;
    const auto names =
        read_at<char>(file, sections[s.sh_link].sh_offset, sections[s.sh_link].sh_size);
    for (const auto& symbol :
         read_at<Elf64_Sym>(file, s.sh_offset, s.sh_size / sizeof(Elf64_Sym))) {
      const bool here = base + symbol.st_value == reinterpret_cast<std::uintptr_t>(function);
      if (here && ELF64_ST_TYPE(symbol.st_info) == STT_FUNC && symbol.st_name < names.size()) {
        return &names[symbol.st_name];
      }
    }
  }
  return {};
}

}  // namespace

std::string function_name(const void* function) {
  const std::string mangled = mangled_name(function);
  if (mangled.empty()) return fmt::format("at {}", function);
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> text(
      abi::__cxa_demangle(mangled.c_str(), nullptr, nullptr, &status), std::free);
  std::string name = status == 0 ? text.get() : mangled;
  if (name.starts_with("void ")) name.erase(0, 5);
  for (const char* noise : {"medvqa::cuda::", "medvqa::", "(anonymous namespace)::"}) {
    for (auto at = name.find(noise); at != name.npos; at = name.find(noise)) {
      name.erase(at, std::strlen(noise));
    }
  }
  return name.substr(0, name.find('('));
}

}  // namespace medvqa::emulation
