// A synthetic data set: phantoms with labels, boxes, a report sentence, questions and answers.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "medvqa/data/synth_phantom.h"
#include "medvqa/image/encode.h"

namespace medvqa::data {

enum class QuestionKind : std::uint8_t { all, closed, open };

struct SynthRequest {
  std::filesystem::path out;
  std::int64_t count = 500;  // images
  std::uint64_t seed = 0;
  int size = 112;
  ImageFormat format = ImageFormat::png;
  double validation = 0.1;  // share of the images in split "val", the rest is "train"
  QuestionKind questions = QuestionKind::all;
  std::vector<Finding> findings{kFindings.begin(), kFindings.end()};  // drawn and asked about
  std::int64_t per_image = 0;  // questions asked of one image, taken in turn; 0: all that apply
  bool text_only = false;      // no pictures: the report is all there is to read
};

struct SynthCounts {
  std::int64_t images = 0;                 // with text_only: reports
  std::int64_t train = 0, validation = 0;  // questions
};

// Writes images/ and dataset.json, whole or not at all. In each split every closed question has
// yes and no equally often, within one, and every question about a side left and right: the
// question alone does not give the answer. UserError(ExitCode::usage) for a request outside its
// bounds and for a folder that is not empty, UserError(ExitCode::io) if it cannot be written.
SynthCounts write_synthetic_dataset(const SynthRequest& request);

}  // namespace medvqa::data
