// Which findings every phantom shows and what is asked about it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "medvqa/data/synth.h"

namespace medvqa::data {

struct SynthQuestion {
  std::string name;  // short, for the record's id
  bool closed = true;
  std::string question, answer;
};

struct SynthCase {
  Phantom phantom;
  bool is_validation = false;
  std::vector<SynthQuestion> questions;
};

// One case an image, the last ones held out. Depends on the request's seed, counts and kinds only.
std::vector<SynthCase> plan_cases(const SynthRequest& request);

// "Enlarged heart. Left pleural effusion. No consolidation. No pneumothorax."
std::string report_of(const Phantom& phantom);
// The same in drawn words and order, another for every image: "No free air. Cardiomegaly. ..."
std::string dictation_of(const Phantom& phantom, std::uint64_t seed, std::size_t image);
// "left pleural effusion and cardiomegaly"; "no finding".
std::string findings_of(const Phantom& phantom);

}  // namespace medvqa::data
