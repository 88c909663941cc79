// Scores of the validation samples without training.
#pragma once

#include "medvqa/train/config.h"
#include "medvqa/train/evaluate.h"

namespace medvqa::train {

// Gives every validation sample the image of another sample, by one cycle through all images in an
// order drawn by `seed`: what a model scores then, it scores without looking. Samples without an
// image stay. UserError(ExitCode::data) with fewer than two images.
void shuffle_images(DataInputs& data, const DataConfig& config, std::uint64_t seed);

// Scores the adapter of lora.init_from; without one a fresh adapter, which changes nothing: the
// base model. Writes nothing. UserError(ExitCode::config) if the configuration has no validation
// samples.
Evaluation evaluate_only(const Config& config, bool with_shuffled_images);

}  // namespace medvqa::train
