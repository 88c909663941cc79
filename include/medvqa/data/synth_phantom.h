// Chest radiograph phantoms: schematic frontal films with known findings, as doctors look at them,
// the patient's left on the right of the picture. For tests and first runs only: nothing learned
// from them says anything about patients.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "medvqa/image/decode.h"

namespace medvqa::data {

enum class Side : std::uint8_t { left, right };  // the patient's

enum class Finding : std::uint8_t { cardiomegaly, effusion, consolidation, pneumothorax, marker };
inline constexpr std::array kFindings{Finding::cardiomegaly, Finding::effusion,
                                      Finding::consolidation, Finding::pneumothorax,
                                      Finding::marker};

// What a phantom shows. The heart has no side; a marker is the letter L or R on its own side.
struct Phantom {
  std::array<bool, kFindings.size()> present{};
  std::array<Side, kFindings.size()> sides{};

  bool has(Finding f) const { return present[static_cast<std::size_t>(f)]; }
  Side side(Finding f) const { return sides[static_cast<std::size_t>(f)]; }
};

// The smallest upright rectangle around what is drawn of a finding, in pixels from the top left.
struct FindingBox {
  Finding finding;
  int x = 0, y = 0, width = 0, height = 0;
};

struct Drawing {
  Image image;  // size x size, grey
  std::vector<FindingBox> boxes;
};

inline constexpr int kSmallestPhantom = 32;
inline constexpr int kLargestPhantom = 4096;

// Pose, proportions, texture and noise come from Philox(seed, index). The arithmetic is IEEE sums,
// products, quotients and roots in a fixed order: the same pixels on every machine.
Drawing draw_phantom(const Phantom& phantom, int size, std::uint64_t seed, std::uint64_t index);

// "pleural effusion", "cardiomegaly", ...; "left", "right".
std::string name_of(Finding finding);
std::string name_of(Side side);

}  // namespace medvqa::data
