// What one forward and backward runs on: packed samples and the rows that carry a loss.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "medvqa/models/input.h"

namespace medvqa::train {

struct MicroBatch {
  models::PackedInput input;
  std::vector<std::int32_t> labels;      // [T], unshifted, -100 where none
  std::vector<std::int32_t> classes;     // [N] of a classification, else empty
  std::vector<std::int32_t> logit_rows;  // [R], row t predicts label t + 1, or a sample's class
  std::vector<std::int32_t> targets;     // [R], that label or class: a row of the head
  std::vector<std::string> sample_ids;   // [N]

  std::int64_t label_count() const { return static_cast<std::int64_t>(logit_rows.size()); }
  // Fills logit_rows and targets: the last token of each sample with its class, or else every row
  // before a label of the same sample.
  void find_logit_rows();
};

}  // namespace medvqa::train
