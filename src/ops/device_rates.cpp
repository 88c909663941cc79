#include "medvqa/ops/device_rates.h"

#include <algorithm>
#include <array>
#include <cctype>

namespace medvqa::ops {

namespace {

struct KnownRates {
  const char* model;
  DeviceRates rates;
};
constexpr std::array<KnownRates, 4> kKnown{{{"t4", {24e12, 250e9, 10e9}},
                                            {"a100", {250e12, 1500e9, 20e9}},
                                            {"h100", {600e12, 3000e9, 45e9}},
                                            {"h200", {600e12, 4000e9, 45e9}}}};
constexpr DeviceRates kUnknown = kKnown[1].rates;

// Whether `word` stands in `text` by itself, whatever the case.
bool has_word(const std::string& text, const std::string& word) {
  std::string current;
  for (const char c : text + " ") {
    if (std::isalnum(static_cast<unsigned char>(c)) != 0) {
      current += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    } else {
      if (current == word) return true;
      current.clear();
    }
  }
  return false;
}

}  // namespace

DeviceRates rates_of(const std::string& device) {
  const auto known = std::find_if(kKnown.begin(), kKnown.end(),
                                  [&](const KnownRates& k) { return has_word(device, k.model); });
  return known == kKnown.end() ? kUnknown : known->rates;
}

}  // namespace medvqa::ops
