// Reads the golden tensors bitsandbytes made. Trusted input: no checks beyond EXPECTs.
#pragma once

#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "medvqa/core/dtype.h"
#include "tests/support/fixtures.h"

namespace medvqa::quant {

class Golden {
 public:
  Golden() {
    const auto file = fixtures_folder() / "quant/quant_goldens.safetensors";
    std::ifstream in(file, std::ios::binary);
    if (!in) throw std::runtime_error("cannot read " + file.string());
    bytes_.assign(std::istreambuf_iterator<char>(in), {});
    std::uint64_t length = 0;
    std::memcpy(&length, bytes_.data(), sizeof(length));
    header_ = nlohmann::json::parse(bytes_.substr(8, length));
    data_ = 8 + length;
  }

  // The values of a tensor as its own type.
  template <class T>
  std::vector<T> raw(const std::string& name) const {
    const auto& offsets = header_.at(name).at("data_offsets");
    const auto begin = offsets.at(0).get<std::size_t>();
    const auto size = offsets.at(1).get<std::size_t>() - begin;
    std::vector<T> values(size / sizeof(T));
    std::memcpy(values.data(), bytes_.data() + data_ + begin, size);
    return values;
  }

  // The values of a floating tensor as f32.
  std::vector<float> floats(const std::string& name) const {
    const auto dtype = header_.at(name).at("dtype").get<std::string>();
    if (dtype == "F32") return raw<float>(name);
    std::vector<float> values;
    if (dtype == "BF16") {
      for (const BFloat16 x : raw<BFloat16>(name)) values.push_back(static_cast<float>(x));
    } else {
      for (const Float16 x : raw<Float16>(name)) values.push_back(static_cast<float>(x));
    }
    return values;
  }

 private:
  std::string bytes_;
  nlohmann::json header_;
  std::size_t data_ = 0;
};

inline const Golden& golden() {
  static const Golden instance;
  return instance;
}

}  // namespace medvqa::quant
