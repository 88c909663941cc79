#include "medvqa/text/label_mask.h"

#include <algorithm>

#include "medvqa/core/error.h"

namespace medvqa {

std::vector<std::int32_t> make_labels(const Encoding& encoding, std::span<const Span> answers,
                                      LossOn loss_on, std::span<const std::int32_t> unlabelled) {
  MEDVQA_CHECK(encoding.ids.size() == encoding.offsets.size(), "one offset for every token");
  std::vector<std::int32_t> labels;
  labels.reserve(encoding.ids.size());
  auto answer = answers.begin();
  for (std::size_t i = 0; i < encoding.ids.size(); ++i) {
    const Span& offset = encoding.offsets[i];
    while (answer != answers.end() && answer->end <= offset.begin) ++answer;
    const bool in_answer = answer != answers.end() && overlap(*answer, offset);
    const bool excluded =
        std::find(unlabelled.begin(), unlabelled.end(), encoding.ids[i]) != unlabelled.end();
    const bool counts = !excluded && (loss_on == LossOn::all || in_answer);
    labels.push_back(counts ? encoding.ids[i] : kNoLabel);
  }
  return labels;
}

}  // namespace medvqa
