// The keys of a config.json that the language models share. Touvron et al. 2023.
#pragma once

#include <optional>
#include <vector>

#include "medvqa/models/config_reader.h"
#include "medvqa/models/decoder_block.h"
#include "medvqa/models/frequencies.h"

namespace medvqa::models {

struct DecoderConfig : DecoderShape {
  std::int64_t vocabulary = 0;  // of the head
  std::int64_t layers = 0;
  double rope_theta = 5e5;
  std::optional<Llama3Scaling> scaling;
};

// What the keys say; eps and rope_theta stay as they are where theirs are missing.
// UserError(ExitCode::model) names the key, what was found and what was expected.
void read_decoder_shape(const ConfigReader& r, DecoderConfig& config);  // all but the rotary keys
void read_decoder(const ConfigReader& r, DecoderConfig& config);

// Of the rotary pairs, [head_size / 2].
std::vector<float> rotary_frequencies(const DecoderConfig& config);

}  // namespace medvqa::models
