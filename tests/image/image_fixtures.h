// Access to tests/fixtures/image.
#pragma once

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

namespace medvqa {

inline std::filesystem::path image_fixture(const std::string& name) {
  return std::filesystem::path(MEDVQA_FIXTURES) / "image" / name;
}

template <class T>
std::vector<T> read_bytes(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("no fixture " + path.string());
  std::vector<T> values(static_cast<std::size_t>(std::filesystem::file_size(path)) / sizeof(T));
  file.read(reinterpret_cast<char*>(values.data()),
            static_cast<std::streamsize>(values.size() * sizeof(T)));
  return values;
}

inline nlohmann::json image_recipe() {
  std::ifstream file(image_fixture("recipe.json"));
  return nlohmann::json::parse(file);
}

}  // namespace medvqa
