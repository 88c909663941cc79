#include "medvqa/train/micro_batch.h"

namespace medvqa::train {

void MicroBatch::find_logit_rows() {
  logit_rows.clear();
  targets.clear();
  if (!classes.empty()) {
    for (std::size_t n = 0; n < classes.size(); ++n) {
      logit_rows.push_back(input.cu_seqlens[n + 1] - 1);
    }
    targets = classes;
    return;
  }
  for (std::size_t n = 0; n + 1 < input.cu_seqlens.size(); ++n) {
    for (std::int32_t t = input.cu_seqlens[n]; t + 1 < input.cu_seqlens[n + 1]; ++t) {
      const std::int32_t label = labels[static_cast<std::size_t>(t) + 1];
      if (label < 0) continue;
      logit_rows.push_back(t);
      targets.push_back(label);
    }
  }
}

}  // namespace medvqa::train
