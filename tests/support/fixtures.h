// Where the committed test data are.
#pragma once

#include <cstdlib>
#include <filesystem>

namespace medvqa {

// In the source tree, or where the environment's MEDVQA_FIXTURES says: test programs of a bundle
// (scripts/make_bundle.sh) run where there is no source tree.
inline std::filesystem::path fixtures_folder() {
  const char* elsewhere = std::getenv("MEDVQA_FIXTURES");
  return elsewhere != nullptr ? elsewhere : MEDVQA_FIXTURES;
}

}  // namespace medvqa
